//! uplink

/// How the way out of a stack is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkState {
    /// No network with a way out was asked for yet.
    Idle,
    Starting,
    Ready,
    /// A sentence for the user; everything but the way out works.
    Failed(String),
}
