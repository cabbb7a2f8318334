//! Names of containers, answered at 127.0.0.11:53 inside each container.
//!
//! [`zone`] knows the names, [`answer`] turns a query into bytes, [`forward`] asks others,
//! [`server`] owns the sockets. Rules: a name is seen only on networks that the asking
//! container shares; every running container with it is returned, in random order; a known
//! name without the family asked for has no data, so nobody outside is asked about it;
//! everything unknown goes to the servers of the host (from the host's namespace) or, when
//! the container names servers of its own, to those (from the container's).

pub mod answer;
pub mod forward;
pub mod server;
pub mod zone;

pub use forward::Upstream;
pub use server::Server;
pub use zone::{Member, Zone};
