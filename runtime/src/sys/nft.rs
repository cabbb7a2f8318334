//! nftables over netlink, without the `nft` program.
