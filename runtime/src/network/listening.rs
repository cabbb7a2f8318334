//! listening
