//! sys

pub mod netns;
pub mod nft;
