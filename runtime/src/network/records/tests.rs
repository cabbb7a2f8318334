use super::*;

fn spec(name: &str) -> NetworkSpec {
    NetworkSpec { name: name.into(), ..NetworkSpec::default() }
}

fn temporary() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home { data: dir.path().into(), run: dir.path().join("run") };
    (dir, home)
}

fn pool(subnet: &str) -> PoolSpec {
    PoolSpec { subnet: Some(subnet.into()), ..PoolSpec::default() }
}

#[test]
fn a_record_is_made_once_and_found_again() {
    let (_dir, home) = temporary();
    let first = create_record(&home, "shop", &spec("shop_default")).unwrap();
    let again = create_record(&home, "shop", &spec("shop_default")).unwrap();
    assert_eq!(first, again);
    assert_eq!(list(&home).unwrap(), [first]);
    let other = create_record(&home, "other", &spec("shop_default")).unwrap_err();
    assert_eq!(other.kind, ErrorKind::Conflict);
    remove_record(&home, "shop_default").unwrap();
    remove_record(&home, "shop_default").unwrap();
    assert!(list(&home).unwrap().is_empty());
}

#[test]
fn names_stay_in_the_folder() {
    let (_dir, home) = temporary();
    for name in ["", "../x", "a/b", ".x", "a b", "-x"] {
        assert!(create_record(&home, "p", &spec(name)).is_err(), "{name:?}");
    }
}

#[test]
fn pools_skip_what_the_host_routes_and_are_shared_only_when_used_up() {
    let host: Vec<Cidr> = vec!["172.17.0.0/16".parse().unwrap(), "172.18.4.0/24".parse().unwrap()];
    let first = draft("p", &spec("n"), &[], &host).unwrap();
    assert_eq!(first.observed.subnet, "172.19.0.0/16");
    assert_eq!(first.observed.gateway, "172.19.0.1");
    let mut others = Vec::new();
    while others.len() < 29 {
        let name = format!("n{}", others.len());
        others.push(draft("other", &spec(&name), &others, &host).unwrap());
    }
    assert_eq!(others[13].observed.subnet, "192.168.0.0/20");
    let shared = draft("mine", &spec("x"), &others, &host).unwrap();
    assert_eq!(shared.observed.subnet, "172.19.0.0/16");
    let exhausted = draft("other", &spec("x"), &others, &host).unwrap_err();
    assert!(exhausted.message.contains("fully subnetted"), "{exhausted}");
}

#[test]
fn a_configured_subnet_is_taken_as_it_is() {
    let mut wanted = spec("n");
    wanted.pools = vec![PoolSpec {
        ip_range: Some("10.5.1.0/24".into()),
        reserved: vec!["10.5.1.1".into()],
        ..pool("10.5.0.0/16")
    }];
    let record = draft("p", &wanted, &[], &[]).unwrap();
    assert!(record.configured);
    assert_eq!(record.observed.gateway, "10.5.1.2");
    wanted.pools[0].gateway = Some("10.6.0.1".into());
    let error = draft("p", &wanted, &[], &[]).unwrap_err();
    assert!(error.message.ends_with("no matching subnet for gateway 10.6.0.1"), "{error}");
    wanted.pools = vec![pool("foo")];
    let error = draft("p", &wanted, &[], &[]).unwrap_err();
    assert!(error.message.ends_with("invalid subnet foo: invalid CIDR block notation"), "{error}");
    wanted.pools = vec![pool("10.5.0.0/16")];
    let overlap = draft("p", &wanted, std::slice::from_ref(&record), &[]).unwrap_err();
    assert_eq!(overlap.kind, ErrorKind::Conflict);
    assert!(draft("q", &wanted, &[record], &[]).is_ok());
}

#[test]
fn ipv6_gets_a_unique_local_block() {
    let wanted = NetworkSpec { enable_ipv6: true, ..spec("n") };
    let record = draft("p", &wanted, &[], &[]).unwrap();
    assert_eq!(record.pools.len(), 2);
    assert!(record.pools[1].subnet.to_string().starts_with("fd"));
    assert!(record.pools[0].subnet.is_ipv4());
    assert_eq!(record, draft("p", &wanted, &[], &[]).unwrap());
}

#[test]
fn bridge_names_fit_and_tell_internal_ones() {
    let plain = bridge_name(&spec("shop_default"));
    let internal = bridge_name(&NetworkSpec { internal: true, ..spec("shop_default") });
    assert!(plain.len() <= 15 && plain.starts_with("br-"), "{plain}");
    assert!(internal.len() <= 15 && internal.starts_with("in-"), "{internal}");
}

#[test]
fn route_rows_are_read_in_host_order() {
    let row = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
    assert_eq!(route_block(row).unwrap().to_string(), "192.0.2.0/24");
    assert_eq!(route_block("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"), None);
    assert_eq!(route_block("Iface Destination Gateway"), None);
}
