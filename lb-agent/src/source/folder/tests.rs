use super::*;

/// Gives texts to a folder; an empty text is a file that is removed. Compares what the last one makes it tell.
#[track_caller]
fn check(steps: &[(&str, &str)], expected: &[&str]) {
    let mut folder = Folder::default();
    let mut told = Vec::new();
    for (name, text) in steps {
        told = if text.is_empty() {
            folder.remove(name)
        } else {
            folder.update(name, text)
        };
    }
    let told: Vec<_> = told.iter().map(words).collect();
    assert_eq!(told, expected);
}

fn words(event: &SourceEvent) -> String {
    match event {
        SourceEvent::Apply {
            object: Object::Service(service),
            ..
        } => {
            let port = service.ports.first().map(|port| port.port.to_string());
            let port = port.unwrap_or_else(|| "without front ends".into());
            format!("{} {port}", service.name)
        }
        SourceEvent::Apply { object, .. } => object.reference().to_string(),
        SourceEvent::Delete(gone) => format!("no {gone}"),
        SourceEvent::Synced => "synced".into(),
        SourceEvent::Problem(problem) => format!("problem: {problem}"),
    }
}

fn service(name: &str, port: u32) -> String {
    format!(
        "kind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{port: {port}}}]}}\n"
    )
}

const BROKEN: &str = "kind: Service\nmetadata: {name: web\n";

#[test]
fn only_what_has_changed_is_told() {
    let both = |port| service("a", 80) + "---\n" + &service("b", port);
    check(&[("x.yaml", &both(80))], &["default/a 80", "default/b 80"]);
    check(&[("x.yaml", &both(80)), ("x.yaml", &both(81))], &["default/b 81"]);
    check(
        &[("x.yaml", &both(80)), ("x.yaml", &service("a", 80))],
        &["no Service default/b"],
    );
    check(
        &[("x.yaml", &both(80)), ("x.yaml", "")],
        &["no Service default/a", "no Service default/b"],
    );
}

#[test]
fn a_broken_object_keeps_its_last_good_state() {
    let problem = "problem: x.yaml, document 1: Service default/a: spec.ports[0].port: 0 is no port; use 1 to 65535; \
                   its last good state stays until it is mended or removed";
    check(
        &[("x.yaml", &service("a", 80)), ("x.yaml", &service("a", 0))],
        &[problem],
    );
    check(
        &[
            ("x.yaml", &service("a", 80)),
            ("x.yaml", &service("a", 0)),
            ("x.yaml", &service("a", 0)),
        ],
        &[],
    );
    check(
        &[
            ("x.yaml", &service("a", 80)),
            ("x.yaml", &service("a", 0)),
            ("x.yaml", &service("a", 81)),
        ],
        &["default/a 81"],
    );
    check(
        &[
            ("x.yaml", &service("a", 80)),
            ("x.yaml", &service("a", 0)),
            ("x.yaml", ""),
        ],
        &["no Service default/a"],
    );
}

#[test]
fn a_service_that_loses_its_address_keeps_its_last_good_state() {
    let without = |spec: &str| {
        format!("kind: Service\nmetadata: {{name: a}}\nspec: {{{spec} ports: [{{port: 81}}]}}\n")
    };
    let missing = "problem: x.yaml, document 1: Service default/a: spec.clusterIP is missing, and nothing but an API \
                   server assigns one; ";
    let stays = missing.to_owned() + "its last good state stays until it is mended or removed";
    let new = missing.to_owned() + "it has no front ends until it is mended";
    let good = service("a", 80);
    for spec in ["", "clusterIP: ,", "clusterIP: '',", "type: LoadBalancer,"] {
        let bad = without(spec);
        check(&[("x.yaml", &good), ("x.yaml", &bad)], &[&stays]);
        check(&[("x.yaml", &good), ("x.yaml", &bad), ("x.yaml", &bad)], &[]);
        check(
            &[("x.yaml", &good), ("x.yaml", &bad), ("x.yaml", "")],
            &["no Service default/a"],
        );
        check(&[("x.yaml", &bad)], &[&new, "default/a without front ends"]);
        check(&[("x.yaml", &bad), ("x.yaml", &good)], &["default/a 80"]);
    }
    let cut = "kind: Service\nmetadata: {name: a}\nspec:\n";
    check(&[("x.yaml", &good), ("x.yaml", cut)], &[&stays]);
    for spec in ["clusterIP: None,", "type: ExternalName,"] {
        check(
            &[("x.yaml", &good), ("x.yaml", &without(spec))],
            &["default/a without front ends"],
        );
    }
}

#[test]
fn a_broken_document_keeps_all_that_its_file_said_before() {
    let good = service("a", 80) + "---\n" + &service("b", 80);
    let broken = service("a", 81) + "---\n" + BROKEN;
    let problem = "problem: x.yaml, document 2: cannot be read: ";
    let mut folder = Folder::default();
    folder.update("x.yaml", &good);
    let told: Vec<_> = folder.update("x.yaml", &broken).iter().map(words).collect();
    assert!(told[0].starts_with(problem), "{}", told[0]);
    assert_eq!(told[1..], ["default/a 81"]);
    check(
        &[
            ("x.yaml", &good),
            ("x.yaml", &broken),
            ("x.yaml", &service("b", 82)),
        ],
        &["no Service default/a", "default/b 82"],
    );
}

#[test]
fn the_first_file_counts() {
    let files = [("a.yaml", &*service("s", 80)), ("b.yaml", &service("s", 81))];
    let problem = "problem: b.yaml, document 1: Service default/s: is in a.yaml, too, which comes first by name and \
                   counts: remove one of them";
    check(&files, &[problem]);
    check(&[files[1], files[0]], &[problem, "default/s 80"]);
    check(&[files[0], files[1], ("a.yaml", "")], &["default/s 81"]);
    check(&[files[0], files[1], ("b.yaml", "")], &[]);
    check(&[files[0], files[1], ("b.yaml", ""), files[1]], &[problem]);
}

#[test]
fn what_is_left_alone_is_no_problem() {
    let headless = "kind: EndpointSlice\naddressType: IPv4\nendpoints: []\nmetadata:\n  name: a\n  labels: {\
                    service.kubernetes.io/headless: ''}\n";
    check(&[("x.yaml", headless)], &[]);
    check(
        &[("x.yaml", "# nothing\n---\n---\nkind: Pod\nmetadata: {name: p}\n")],
        &[],
    );
}

#[test]
fn what_is_no_object_is_a_problem() {
    let problem = |text: &str| format!("problem: x.yaml, document 1: {text}");
    let kind = "this is a single value, not a Kubernetes object; the objects that this document had before stay until it is mended";
    check(&[("x.yaml", "just words\n")], &[&problem(kind)]);
    check(
        &[("x.yaml", "kind: Gadget\n")],
        &[&problem(
            "kind \"Gadget\" is unknown; only Service, EndpointSlice and Node are used",
        )],
    );
}

#[test]
fn an_unreadable_file_keeps_what_it_said() {
    let mut folder = Folder::default();
    folder.update("x.yaml", &service("a", 80));
    let told: Vec<_> = folder
        .unreadable("x.yaml", "permission denied")
        .iter()
        .map(words)
        .collect();
    assert_eq!(
        told,
        ["problem: x.yaml: the file cannot be read: permission denied; what it said last stays"]
    );
    assert_eq!(folder.unreadable("x.yaml", "permission denied"), []);
    assert_eq!(folder.update("x.yaml", &service("a", 80)), []);
}

/// What a file that holds just this makes it tell first, without file and document.
fn first_words(text: &str) -> String {
    let told = Folder::default().update("x.yaml", text);
    let first = told.first().map(words).unwrap_or_default();
    first.replace("problem: x.yaml, document 1", "")
}

#[test]
fn warnings_name_the_field() {
    let spec = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: 10.96.0.1, {spec}}}\n"
        )
    };
    let slice = |rest: &str| {
        format!(
            "kind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: a, labels: {{kubernetes.io/service-name: a}}}}\n{rest}\n"
        )
    };
    let table = [
        (
            spec("ports: [{port: '80'}]"),
            "Service default/a: spec.ports[0].port must be a number, not string \"80\"; it is left out until it is mended",
        ),
        (
            spec("ports: [{port: 99999999999}]"),
            "Service default/a: spec.ports[0].port: integer `99999999999` is out of range; it is left out until it is mended",
        ),
        (
            spec("ports: {port: 80}"),
            "Service default/a: spec.ports must be a list, not a mapping; it is left out until it is mended",
        ),
        (
            spec("ports: [{port: 80}], clusterIp: 1, prots: [], x: 1, y: 2"),
            "Service default/a: fields spec.clusterIp, spec.prots, spec.x and 1 more are unknown and have no effect",
        ),
        (
            spec("ports: [{port: 80, tragetPort: 8080}]"),
            "Service default/a: field spec.ports[0].tragetPort is unknown and has no effect",
        ),
        (
            spec("ports: []").replace("clusterIP", "clusterIp"),
            "Service default/a: spec.clusterIP is missing, and nothing but an API server assigns one; field spec.clusterIp is unknown and has no effect; it has no front ends until it is mended",
        ),
        (
            spec("ports: []").replace("v1", "v2"),
            "Service default/a: apiVersion: \"v2\" is not known for a Service; use v1; it is left out until it is mended",
        ),
        (
            spec("ports: []").replace("v1", "1"),
            "Service default/a: apiVersion: 1 is not known for a Service; use v1; it is left out until it is mended",
        ),
        (
            spec("ports: []").replace("v1", "apps/v1"),
            "Service default/a: apiVersion: \"apps/v1\" is not known for a Service; use v1; it is left out until it is mended",
        ),
        (spec("ports: []").replace("v1", "serving.knative.dev/v1"), ""),
        (
            spec("ports: []").replace("name: a", "name: true"),
            "metadata.name must be text, not boolean `true`; quote it; the objects that this document had before stay until it is mended",
        ),
        (
            spec("ports: []").replace("name: a", "name: y"),
            "metadata.name must be text, not boolean `true`; quote it; the objects that this document had before stay until it is mended",
        ),
        (
            spec("ports: []").replace("name: a", "name: 5"),
            "metadata.name must be text, not integer `5`; quote it; the objects that this document had before stay until it is mended",
        ),
        (
            slice("enpoints: []"),
            "EndpointSlice default/a: endpoints is missing; write [] if there are none; it is left out until it is mended",
        ),
        (
            slice("endpoints: [{addresses: 10.0.0.1}]"),
            "EndpointSlice default/a: endpoints[0].addresses must be a list, not string \"10.0.0.1\"; it is left out until it is mended",
        ),
        (
            "kind: List\nitems:\n- {kind: Pod}\n- {kind: Service, metadata: {name: b}, spec: 5}\n".into(),
            ", item 2: Service default/b: spec must be a mapping, not integer `5`; it is left out until it is mended",
        ),
        (
            "kind: List\nitem: []\n".into(),
            "items must be a list; the objects that this document had before stay until it is mended",
        ),
        (
            "kind: [Service]\n".into(),
            "kind must be text; the objects that this document had before stay until it is mended",
        ),
        (
            "- kind: Service\n- kind: Service\n".into(),
            "this is a list, not a Kubernetes object; the objects that this document had before stay until it is mended",
        ),
        (
            "metadata: {}\n".into(),
            "field kind is missing, so this is no Kubernetes object; the objects that this document had before stay until it is mended",
        ),
        (
            format!("a: &a [1]\nb: [{}]\n", "*a, ".repeat(60_000)),
            "cannot be read: it has more anchors, aliases, levels or text than is read; the objects that this document had before stay until it is mended",
        ),
    ];
    for (text, expected) in table {
        let told = first_words(&text);
        assert_eq!(told.strip_prefix(": ").unwrap_or(&told), expected, "{text:.200}");
    }
}
