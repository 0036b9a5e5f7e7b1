use std::ffi::OsString;

use clap::CommandFactory as _;

use super::*;
use crate::cli::Cli;

/// What kubeadm writes.
const KUBEADM: &str = r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:244::/48
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: 12h0m0s
  udpStreamTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: Node-A
iptables:
  localhostNodePorts: null
  masqueradeAll: true
  masqueradeBit: null
  minSyncPeriod: 1s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  scheduler: ""
  strictARP: false
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: ""}}
  verbosity: 0
metricsBindAddress: ""
mode: nftables
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, networkName: "", sourceVip: ""}
"#;

/// What a file adds to `lb-agent run` and these flags.
fn added(text: &str, flags: &[&str]) -> anyhow::Result<(Vec<OsString>, Vec<String>)> {
    let cli = Cli::command();
    let matches = cli
        .clone()
        .try_get_matches_from([&["lb-agent", "run"], flags].concat())?;
    let run = cli.find_subcommand("run").unwrap();
    let mut file = ConfigFile::parse(text)?;
    if file.foreign {
        file.keep_known(run);
    }
    let arguments = file.arguments(run, matches.subcommand_matches("run").unwrap())?;
    Ok((arguments, file.notices))
}

/// Compares what an own file adds.
#[track_caller]
fn check(fields: &str, flags: &[&str], expected: &[&str]) {
    let text = format!("apiVersion: sluice.dev/v1alpha1\nkind: SluiceConfiguration\n{fields}");
    assert_eq!(added(&text, flags).unwrap().0, expected);
}

#[track_caller]
fn check_error(text: &str, expected: &str) {
    let error = format!("{:#}", added(text, &[]).unwrap_err());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn fields_are_flags_and_flags_win() {
    check("", &[], &[]);
    check("xdp: off", &[], &["--xdp=off"]);
    check("xdp: false", &[], &["--xdp=off"]);
    check("maxServices: 5000", &[], &["--max-services=5000"]);
    check(
        "detachOnExit: true\nmasqueradeAll: false",
        &[],
        &["--detach-on-exit"],
    );
    check(
        "clusterCIDR: [10.244.0.0/16, \"fd00:244::/48\"]",
        &[],
        &["--cluster-cidr=10.244.0.0/16", "--cluster-cidr=fd00:244::/48"],
    );
    check(
        "clusterCidr: 10.244.0.0/16",
        &["--cluster-cidr", "10.0.0.0/8"],
        &[],
    );
    check("snat: null", &[], &[]);
    check("hostnameOverride: a", &["--node-name", "b"], &[]);
    check(
        "kubeconfig: /k\nsnat: always",
        &["--manifests", "/m"],
        &["--snat=always"],
    );
}

#[test]
fn what_cannot_be_used_is_named() {
    let own = |fields: &str| format!("apiVersion: sluice.dev/v1alpha1\nkind: SluiceConfiguration\n{fields}");
    check_error(&own("clusterCDIR: 10.0.0.0/8"), "field clusterCDIR is unknown");
    check_error(&own("config: /other"), "field config is unknown");
    check_error(
        &own("masqueradeAll: yes please"),
        "field masqueradeAll must be true or false",
    );
    check_error(
        &own("snat: {always: true}"),
        "field snat must be text, a number, or a list",
    );
    check_error("kind: SluiceConfiguration", "is no configuration of this program");
    check_error(
        "apiVersion: v1\nkind: ConfigMap",
        "apiVersion \"v1\", kind \"ConfigMap\"",
    );
    check_error("- a\n", "it must be a mapping");
    check_error("a: [", "");
}

#[test]
fn kubeadms_configuration_of_kube_proxy_is_read() {
    let (arguments, notices) = added(KUBEADM, &[]).unwrap();
    assert_eq!(
        arguments,
        [
            "--cluster-cidr=10.244.0.0/16,fd00:244::/48",
            "--kubeconfig=/var/lib/kube-proxy/kubeconfig.conf",
            "--masquerade-all",
            "--node-name=Node-A",
            "--tcp-established=12h0m0s",
        ]
    );
    assert_eq!(
        notices,
        [
            "iptables.minSyncPeriod has no effect: rules of netfilter are not used",
            "mode has no effect: there is one data plane, BPF",
        ]
    );
    let all = [vec!["lb-agent".into(), "run".into()], arguments].concat();
    Cli::command().try_get_matches_from(all).unwrap();
}

#[test]
fn the_way_to_tell_pods_is_a_matter_of_prefixes() {
    let text = |fields: &str| {
        format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}")
    };
    let with = |mode: &str| {
        added(
            &text(&format!("clusterCIDR: 10.0.0.0/8\ndetectLocalMode: {mode}")),
            &[],
        )
        .unwrap()
    };
    assert_eq!(with("ClusterCIDR").0, ["--cluster-cidr=10.0.0.0/8"]);
    assert_eq!(with("NodeCIDR").0, [] as [OsString; 0]);
    let (arguments, notices) = with("BridgeInterface");
    assert_eq!(arguments, ["--cluster-cidr=10.0.0.0/8"]);
    assert!(
        notices[0].starts_with("detectLocalMode \"BridgeInterface\" has no effect"),
        "{notices:?}"
    );
    let (arguments, notices) = added(&text("newField: 7"), &[]).unwrap();
    assert_eq!(arguments, [] as [OsString; 0]);
    assert_eq!(
        notices,
        ["newField has no effect: it is no field that is known here"]
    );
}

/// Every flag whose value is text could be misspelt in the table.
#[test]
fn settings_of_kube_proxy_are_flags() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    for flag in [
        "cluster-cidr",
        "node-name",
        "kubeconfig",
        "masquerade-all",
        "tcp-established",
    ] {
        assert!(
            run.get_arguments()
                .any(|argument| is_called(argument, &plain(flag))),
            "{flag}"
        );
    }
}
