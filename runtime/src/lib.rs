#![doc = include_str!("../README.md")]

pub mod engine;
pub mod home;
pub mod observed;
pub mod spec;
pub mod cgroup;
pub mod container;
pub mod image;
pub mod init;
pub mod launch;
pub mod logs;
pub mod monitor;
pub mod network;
pub mod snapshot;
pub mod sys;
pub mod volume;
