#![doc = include_str!("../README.md")]
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
