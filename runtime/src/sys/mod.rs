//! sys

pub mod aside;
pub mod netns;
pub mod nft;
