//! `stack oci`, called as a container engine calls it: a bundle of busybox in, what the container sees out.

mod bed;

mod commands;
mod confinement;
mod file_system;
mod hooks;
mod life;
mod process;
mod refusals;
mod resources;
mod terminal;
mod users;
