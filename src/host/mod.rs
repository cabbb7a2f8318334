//! The production engine: what the plan asks for, done through the files of `home` and the supervisor of the stack.
//!
//! | module | does |
//! |---|---|
//! | [`record`] | what is written about a container: `config.json`, `supervision.json` |

pub mod record;
