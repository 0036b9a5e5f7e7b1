use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::serve::Publisher;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

/// A Service, its port, and the numbers of its families.
type Check<'a> = (&'a str, u16, &'a [(IpFamily, usize)]);

/// Checks at localhost.
fn checks(services: &[Check<'_>]) -> HealthChecks {
    let services = services.iter().map(|(service, port, endpoints)| {
        let check = HealthCheck {
            port: *port,
            endpoints: endpoints.iter().copied().collect(),
        };
        (name(service), check)
    });
    HealthChecks {
        services: services.collect(),
        at: BTreeSet::from([V4, V6]),
    }
}

/// A port that was free a moment ago, on both families.
fn free_port() -> u16 {
    let listener = TcpListener::bind("[::]:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs the servers beside a test.
fn with_servers<F: Future<Output = ()>>(test: impl FnOnce(Publisher) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let publisher = Publisher::new().unwrap();
    let servers = Servers::new(
        "node-a".to_owned(),
        publisher.checks.subscribe(),
        publisher.health.subscribe(),
        publisher.metrics.clone(),
        Events::without_api(publisher.metrics.agent.clone()),
    );
    runtime.block_on(async {
        tokio::select! {
            () = servers.run() => panic!("the servers ended"),
            () = test(publisher) => {}
        }
    });
}

/// The status of an answer; `None` where nobody listens.
async fn status(ip: IpAddr, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((ip, port)).await.ok()?;
    let request = "GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1).map(ToOwned::to_owned)
}

/// Waits until the status is this one.
async fn wait_for(ip: IpAddr, port: u16, expected: Option<&str>) {
    let wait = async {
        while status(ip, port).await.as_deref() != expected {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let came = timeout(Duration::from_secs(5), wait).await;
    let found = status(ip, port).await;
    assert!(came.is_ok(), "[{ip}]:{port} is {found:?}, not {expected:?}");
}

#[test]
fn the_answer_is_that_of_kube_proxy() {
    let text = |response: Response| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (parts, body) = response.into_parts();
        let body = runtime.block_on(body.collect()).unwrap().to_bytes();
        let headers = parts.headers.iter();
        let headers = headers.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
        format!(
            "{}\n{}\n{}",
            parts.status.as_u16(),
            headers.collect::<String>(),
            String::from_utf8_lossy(&body)
        )
    };
    assert_eq!(
        text(answer(&name("web"), 2, true)),
        "200\ncontent-type: application/json\nx-content-type-options: nosniff\nx-load-balancing-endpoint-weight: 2\n\n\
         {\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\
         \t\"serviceProxyHealthy\": true\n}"
    );
    for (endpoints, healthy) in [(0, true), (2, false), (0, false)] {
        let text = text(answer(&name("web"), endpoints, healthy));
        assert!(text.starts_with("503\n"), "{text}");
        assert!(
            text.contains(&format!("\"localEndpoints\": {endpoints},")),
            "{text}"
        );
        assert!(
            text.ends_with(&format!("\"serviceProxyHealthy\": {healthy}\n}}")),
            "{text}"
        );
    }
}

#[test]
fn addresses_are_those_of_the_family() {
    let all = [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let cases: [(&[IpAddr], &str); 4] = [
        (&all, "IPv4 0.0.0.0:30200, IPv6 [::]:30200"),
        (&[all[0], V6], "IPv4 0.0.0.0:30200, IPv6 [::1]:30200"),
        (
            &[[192, 0, 2, 1].into(), V4],
            "IPv4 127.0.0.1:30200 192.0.2.1:30200",
        ),
        (&[], ""),
    ];
    for (at, expected) in cases {
        let mut checks = checks(&[("web", 30_200, &[(IpFamily::V4, 1), (IpFamily::V6, 1)])]);
        checks.at = at.iter().copied().collect();
        let wanted = checks.wanted().into_iter().map(|((_, family), at)| {
            let at: Vec<_> = at.iter().map(ToString::to_string).collect();
            format!("{family} {}", at.join(" "))
        });
        assert_eq!(wanted.collect::<Vec<_>>().join(", "), expected);
    }
}

#[test]
fn ports_follow_where_they_are_to_be_open() {
    with_servers(|publisher| async move {
        let port = free_port();
        let at = |at: &[IpAddr]| HealthChecks {
            at: at.iter().copied().collect(),
            ..checks(&[("web", port, &[(IpFamily::V4, 1)])])
        };
        let other = IpAddr::from([127, 0, 0, 2]);
        publisher.checks.send_replace(at(&[V4]));
        wait_for(V4, port, Some("200")).await;
        assert_eq!(status(other, port).await, None);
        publisher.checks.send_replace(at(&[other]));
        wait_for(other, port, Some("200")).await;
        assert_eq!(status(V4, port).await, None);
        publisher.checks.send_replace(at(&[Ipv4Addr::UNSPECIFIED.into()]));
        wait_for(V4, port, Some("200")).await;
        wait_for(other, port, Some("200")).await;
        publisher.checks.send_replace(at(&[]));
        wait_for(V4, port, None).await;
        assert_eq!(publisher.metrics.agent.health_check_ports(), (0, 0));
    });
}

#[test]
fn each_family_says_its_own_number() {
    with_servers(|publisher| async move {
        let port = free_port();
        let with = |v4, v6| checks(&[("web", port, &[(IpFamily::V4, v4), (IpFamily::V6, v6)])]);
        publisher.checks.send_replace(with(1, 0));
        wait_for(V4, port, Some("200")).await;
        wait_for(V6, port, Some("503")).await;
        publisher.checks.send_replace(with(0, 3));
        wait_for(V4, port, Some("503")).await;
        wait_for(V6, port, Some("200")).await;
        publisher
            .checks
            .send_replace(checks(&[("web", port, &[(IpFamily::V6, 3)])]));
        wait_for(V4, port, None).await;
        assert_eq!(status(V6, port).await.as_deref(), Some("200"));
        publisher.checks.send_replace(checks(&[]));
        wait_for(V6, port, None).await;
    });
}

#[test]
fn a_service_may_take_over_the_port_of_another() {
    with_servers(|publisher| async move {
        let port = free_port();
        publisher
            .checks
            .send_replace(checks(&[("b", port, &[(IpFamily::V4, 0)])]));
        wait_for(V4, port, Some("503")).await;
        publisher
            .checks
            .send_replace(checks(&[("a", port, &[(IpFamily::V4, 1)])]));
        wait_for(V4, port, Some("200")).await;
        assert_eq!(publisher.metrics.agent.health_check_ports(), (1, 0));
    });
}

#[test]
fn a_port_that_is_taken_is_tried_again() {
    with_servers(|publisher| async move {
        let port = free_port();
        let other = TcpListener::bind((V4, port)).unwrap();
        publisher
            .checks
            .send_replace(checks(&[("web", port, &[(IpFamily::V4, 1)])]));
        while publisher.metrics.agent.health_check_ports() != (0, 1) {
            sleep(Duration::from_millis(1)).await;
        }
        drop(other);
        wait_for(V4, port, Some("200")).await;
        assert_eq!(publisher.metrics.agent.health_check_ports(), (1, 0));
    });
}
