//! Services that are split over others.

use super::*;
use crate::model::Share;

/// A Service that `web` may be split over, and its slice.
fn part(name: &str, ports: &[(&str, u16)], endpoints: &[&str]) -> [Object; 2] {
    let mut target = service(BOTH);
    target.name = ObjectName::new("default", name);
    let port = |(name, number): &(&str, u16)| ServicePort {
        name: (*name).into(),
        port: *number,
        node_port: None,
        protocol: Protocol::Tcp,
    };
    target.ports = ports.iter().map(port).collect();
    let mut slice = slice((ports[0].0, 9000, Protocol::Tcp), endpoints);
    slice.name = ObjectName::new("default", name);
    slice.service = target.name.clone();
    [Object::Service(target), Object::EndpointSlice(slice)]
}

/// Splits `web`, which has the port 80/tcp named http, over other Services. Compares where that leads, and what is told.
#[track_caller]
fn check_split(shares: &[(&str, u32)], parts: &[[Object; 2]], cluster: &str, local: &str, told: &[&str]) {
    let mut service = service(BOTH);
    let share = |(service, weight): &(&str, u32)| Share {
        service: (*service).into(),
        weight: *weight,
    };
    service.options.split = shares.iter().map(share).collect();
    let own = Object::EndpointSlice(slice(HTTP, &["10.0.0.99 l"]));
    let objects = || parts.iter().flatten().cloned().chain([own.clone()]);
    let half = half_in(&service, objects(), &[]);
    assert_eq!(
        (words(&half.cluster).as_str(), words(&half.local).as_str()),
        (cluster, local)
    );
    let mut world = World::default();
    objects().for_each(|object| _ = world.apply(object, Origin::default()));
    let problems = split_problems(&service, &world);
    let problems: Vec<_> = problems
        .iter()
        .map(|text| {
            text.trim_start_matches("sluice.dev/split: ")
                .trim_end_matches("; the others get its share")
        })
        .collect();
    assert_eq!(problems, told);
}

#[test]
fn a_split_leads_to_the_endpoints_of_others_by_share() {
    let v1 = part("v1", &[("http", 8080)], &["10.0.0.1", "10.0.0.2", "10.0.0.3 l"]);
    let v2 = part("v2", &[("http", 80)], &["10.0.0.4"]);
    check_split(
        &[("v1", 90), ("v2", 10)],
        &[v1.clone(), v2],
        "10.0.0.1:9000*3 10.0.0.2:9000*3 10.0.0.3:9000*3 10.0.0.4:9000",
        "10.0.0.3:9000",
        &[],
    );
    let draining = part("v2", &[("http", 80)], &["10.0.0.4 n"]);
    check_split(
        &[("v1", 90), ("v2", 10)],
        &[v1.clone(), draining],
        "10.0.0.1:9000 10.0.0.2:9000 10.0.0.3:9000",
        "10.0.0.3:9000",
        &[],
    );
    check_split(
        &[("v1", 90), ("v2", 10)],
        &[v1],
        "10.0.0.1:9000 10.0.0.2:9000 10.0.0.3:9000",
        "10.0.0.3:9000",
        &["there is no Service default/v2"],
    );
}

#[test]
fn ports_of_a_split_are_matched_by_name_and_else_by_number() {
    let by_number = part("v1", &[("web", 80)], &["10.0.0.1"]);
    check_split(&[("v1", 1)], &[by_number], "10.0.0.1:9000", "", &[]);
    let by_name = part("v1", &[("http", 8081), ("other", 80)], &["10.0.0.1"]);
    check_split(&[("v1", 1)], &[by_name], "10.0.0.1:9000", "", &[]);
    let neither = part("v1", &[("web", 8080)], &["10.0.0.1"]);
    check_split(
        &[("v1", 1)],
        &[neither],
        "",
        "",
        &["Service default/v1 has no port http/tcp"],
    );
}
