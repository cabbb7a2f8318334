//! What the user wrote: text to [`project::Project`].
//!
//! Pure: no async, no kernel, no terminal. The crate reads the world only through the
//! [`source::Files`] and [`env::Env`] values it is given.
//!
//! | module | does |
//! |---|---|
//! | [`source`] | a file as read, where it came from, and a place in it |
//! | [`diagnostic`] | a sentence about the user's text: place, excerpt, hint |
//! | [`project`] | the result: complete, ordered, immutable |
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod project;
pub mod source;

pub mod attributes;
pub mod dockerfile;
pub mod env;
pub mod ignore;
pub mod interpolate;
pub mod keypath;
pub mod load;
pub mod short;
pub mod yaml;
