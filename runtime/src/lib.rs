#![doc = include_str!("../README.md")]

pub mod cgroup;
pub mod container;
pub mod engine;
pub mod home;
pub mod image;
pub mod init;
pub mod launch;
pub mod logs;
pub mod monitor;
pub mod network;
pub mod observed;
pub mod rootless;
pub mod snapshot;
pub mod spec;
pub mod sys;
pub mod volume;
