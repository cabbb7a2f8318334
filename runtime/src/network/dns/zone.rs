//! Who is called what, on which network.

use crate::network::shared::Others;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::RwLock;

/// A running container's place on one network.
#[derive(Debug, Clone, Default)]
pub struct Member {
    pub network: String,
    pub addresses: Vec<IpAddr>,
    /// Container name first (it is what a reverse lookup gives), then service, aliases, short id, host name.
    pub names: Vec<String>,
}

/// What the zone knows about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// All addresses, both families, in random order.
    Yes(Vec<IpAddr>),
    No,
}

/// All names of one stack. Questions and changes may come from any thread.
#[derive(Debug, Default)]
pub struct Zone {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// By network, then by lower-case name: container and address.
    names: HashMap<String, HashMap<String, Vec<(String, IpAddr)>>>,
    /// By network and address: the container's name.
    owners: HashMap<(String, IpAddr), String>,
    /// By container: its networks in order.
    joined: HashMap<String, Vec<String>>,
    /// By container: lower-case aliases that only it knows, and the names they stand for.
    links: HashMap<String, HashMap<String, Vec<String>>>,
    /// By network: the containers of other stacks on it.
    others: HashMap<String, Others>,
}

impl Zone {
    /// The container appears. What it had before is replaced. `links`: alias and name.
    pub fn insert(&self, id: &str, members: &[Member], links: &[(String, String)]) {
        let mut tables = self.tables.write().expect("no holder panics");
        tables.remove(id);
        for member in members {
            tables.add(id, member);
        }
        for (alias, name) in links {
            let own = tables.links.entry(id.to_owned()).or_default();
            own.entry(alias.to_ascii_lowercase()).or_default().push(name.to_ascii_lowercase());
        }
    }

    /// The container disappears.
    pub fn remove(&self, id: &str) {
        self.tables.write().expect("no holder panics").remove(id);
    }

    /// Other stacks are on the network too.
    pub(in crate::network) fn share(&self, network: &str, others: Others) {
        self.tables.write().expect("no holder panics").others.insert(network.to_owned(), others);
    }

    pub(in crate::network) fn unshare(&self, network: &str) {
        self.tables.write().expect("no holder panics").others.remove(network);
    }

    /// The names of a container on a network; its own name first.
    pub(in crate::network) fn names_of(&self, id: &str, network: &str) -> Vec<String> {
        let tables = self.tables.read().expect("no holder panics");
        let all = tables.names.get(network).into_iter().flatten();
        let own = all.filter(|(_, entries)| entries.iter().any(|(owner, _)| owner == id));
        let mut names: Vec<String> = own.map(|(name, _)| name.clone()).collect();
        let is_own = |((n, _), owner): (&(String, IpAddr), &String), name: &String| {
            n == network && owner.eq_ignore_ascii_case(name)
        };
        names.sort_by_key(|name| !tables.owners.iter().any(|entry| is_own(entry, name)));
        names
    }

    /// Looks a name up for a container: its own links first, then the first of its networks that knows it answers.
    /// `name.network` asks one network.
    pub fn lookup(&self, asking: &str, name: &str) -> Known {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let tables = self.tables.read().expect("no holder panics");
        let networks = tables.joined.get(asking).map(Vec::as_slice).unwrap_or_default();
        let on_networks = |name: &str| networks.iter().find_map(|network| tables.on(network, name));
        let linked = tables.links.get(asking).and_then(|links| links.get(&name)).into_iter().flatten();
        let linked: Vec<IpAddr> = linked.filter_map(|name| on_networks(name)).flatten().collect();
        let found = Some(linked).filter(|found| !found.is_empty()).or_else(|| on_networks(&name));
        found.map_or(Known::No, |mut addresses| {
            shuffle(&mut addresses);
            Known::Yes(addresses)
        })
    }

    /// `name.network` of an address on one of the container's networks.
    pub fn reverse(&self, asking: &str, address: IpAddr) -> Option<String> {
        let tables = self.tables.read().expect("no holder panics");
        let networks = tables.joined.get(asking)?;
        networks.iter().find_map(|network| {
            let own = tables.owners.get(&(network.clone(), address)).cloned();
            let name = own.or_else(|| tables.others.get(network)?.name(address))?;
            Some(format!("{name}.{network}"))
        })
    }
}

impl Tables {
    fn add(&mut self, id: &str, member: &Member) {
        self.joined.entry(id.to_owned()).or_default().push(member.network.clone());
        let names = self.names.entry(member.network.clone()).or_default();
        let mut seen = Vec::new();
        for name in member.names.iter().map(|n| n.to_ascii_lowercase()) {
            if name.is_empty() || seen.contains(&name) {
                continue;
            }
            let entries = names.entry(name.clone()).or_default();
            entries.extend(member.addresses.iter().map(|a| (id.to_owned(), *a)));
            seen.push(name);
        }
        if let Some(first) = member.names.first() {
            for address in &member.addresses {
                self.owners.insert((member.network.clone(), *address), first.clone());
            }
        }
    }

    fn remove(&mut self, id: &str) {
        self.links.remove(id);
        for network in self.joined.remove(id).unwrap_or_default() {
            let Some(names) = self.names.get_mut(&network) else { continue };
            let mut freed = Vec::new();
            names.retain(|_, entries| {
                freed.extend(entries.iter().filter(|(owner, _)| owner == id).map(|(_, a)| *a));
                entries.retain(|(owner, _)| owner != id);
                !entries.is_empty()
            });
            for address in freed {
                self.owners.remove(&(network.clone(), address));
            }
        }
    }

    /// The addresses of a plain name, or of a name that ends in this network's.
    fn on(&self, network: &str, name: &str) -> Option<Vec<IpAddr>> {
        let suffix = format!(".{}", network.to_ascii_lowercase());
        self.called(network, name).or_else(|| self.called(network, name.strip_suffix(&suffix)?))
    }

    fn called(&self, network: &str, name: &str) -> Option<Vec<IpAddr>> {
        let own = self.names.get(network).and_then(|names| names.get(name)).into_iter().flatten();
        let mut addresses: Vec<IpAddr> = own.map(|(_, address)| *address).collect();
        addresses.extend(self.others.get(network).into_iter().flat_map(|others| others.addresses(name)));
        (!addresses.is_empty()).then_some(addresses)
    }
}

/// Random order, so that clients which take the first answer spread.
fn shuffle(addresses: &mut [IpAddr]) {
    for last in (1..addresses.len()).rev() {
        let random = getrandom::u32().unwrap_or(0) as usize;
        addresses.swap(last, random % (last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(network: &str, address: &str, names: &[&str]) -> Member {
        Member {
            network: network.into(),
            addresses: vec![address.parse().unwrap()],
            names: names.iter().map(|n| (*n).to_owned()).collect(),
        }
    }

    fn addresses(known: Known) -> Vec<String> {
        let Known::Yes(found) = known else { return Vec::new() };
        let mut found: Vec<String> = found.iter().map(ToString::to_string).collect();
        found.sort();
        found
    }

    #[test]
    fn names_are_seen_only_on_shared_networks() {
        let zone = Zone::default();
        zone.insert("a", &[member("front", "10.0.0.2", &["p-web-1", "web"])], &[]);
        zone.insert("b", &[member("back", "10.1.0.2", &["p-db-1", "db"])], &[]);
        assert_eq!(zone.lookup("a", "db"), Known::No);
        zone.insert(
            "c",
            &[member("front", "10.0.0.3", &["p-mid-1"]), member("back", "10.1.0.3", &["p-mid-1"])],
            &[],
        );
        assert_eq!(addresses(zone.lookup("c", "db")), ["10.1.0.2"]);
        assert_eq!(addresses(zone.lookup("c", "WEB.")), ["10.0.0.2"]);
        assert_eq!(addresses(zone.lookup("b", "p-mid-1")), ["10.1.0.3"]);
        assert_eq!(addresses(zone.lookup("c", "p-mid-1.back")), ["10.1.0.3"]);
        assert_eq!(zone.lookup("c", "web.back"), Known::No);
        assert_eq!(zone.lookup("stranger", "web"), Known::No);
    }

    #[test]
    fn replicas_share_a_name_and_the_stopped_one_leaves_it() {
        let zone = Zone::default();
        for n in 2..6 {
            zone.insert(
                &n.to_string(),
                &[member("n", &format!("10.0.0.{n}"), &[&format!("p-web-{n}"), "web"])],
                &[],
            );
        }
        assert_eq!(addresses(zone.lookup("2", "web")).len(), 4);
        let orders: std::collections::HashSet<_> =
            (0..200).map(|_| format!("{:?}", zone.lookup("2", "web"))).collect();
        assert!(orders.len() > 3, "the order varies");
        assert_eq!(zone.reverse("2", "10.0.0.3".parse().unwrap()).as_deref(), Some("p-web-3.n"));
        zone.remove("3");
        assert_eq!(addresses(zone.lookup("2", "web")), ["10.0.0.2", "10.0.0.4", "10.0.0.5"]);
        assert_eq!(zone.reverse("2", "10.0.0.3".parse().unwrap()), None);
        assert_eq!(zone.lookup("2", "p-web-3"), Known::No);
    }

    #[test]
    fn a_name_given_twice_counts_once() {
        let zone = Zone::default();
        zone.insert("a", &[member("n", "10.0.0.2", &["web", "Web", "web"])], &[]);
        assert_eq!(addresses(zone.lookup("a", "web")), ["10.0.0.2"]);
    }

    #[test]
    fn links_are_known_to_their_container_alone() {
        let zone = Zone::default();
        let link = |alias: &str, name: &str| (alias.to_owned(), name.to_owned());
        zone.insert("db", &[member("n", "10.0.0.2", &["p-db-1", "db"])], &[]);
        zone.insert(
            "a",
            &[member("n", "10.0.0.3", &["p-a-1"])],
            &[link("Database", "db"), link("db", "gone")],
        );
        assert_eq!(addresses(zone.lookup("a", "database")), ["10.0.0.2"]);
        assert_eq!(addresses(zone.lookup("a", "db")), ["10.0.0.2"], "a link to nobody hides no name");
        assert_eq!(zone.lookup("db", "database"), Known::No);
        zone.insert("a", &[member("n", "10.0.0.3", &["p-a-1"])], &[]);
        assert_eq!(zone.lookup("a", "database"), Known::No);
    }
}
