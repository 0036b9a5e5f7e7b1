//! What a large cluster costs the agent: from its start to everything in the maps, from one change to the map, processor
//! time and memory; beside it kube-proxy, told the same by the same server.

mod cost;
mod kube_proxy;
mod sluice;
mod stage;

use anyhow::Result;
use serde::Serialize;

use super::table::table;
use crate::replay::Cluster;
use crate::site::Mode;

/// From small to large, so that what grows is seen; last, many small Services.
const CLUSTERS: [Cluster; 5] = [
    Cluster {
        services: 20,
        endpoints: 50,
    },
    Cluster {
        services: 200,
        endpoints: 50,
    },
    Cluster {
        services: 2_000,
        endpoints: 50,
    },
    Cluster {
        services: 5_000,
        endpoints: 50,
    },
    Cluster {
        services: 10_000,
        endpoints: 1,
    },
];
/// In iptables mode kube-proxy takes minutes for more.
const MOST_FOR_IPTABLES: usize = 10_000;

/// What was measured of one program and one cluster.
#[derive(Debug, Serialize)]
pub struct Scale {
    /// Who was asked.
    pub proxy: String,
    /// Services of the cluster.
    pub services: usize,
    /// Endpoints of all its Services.
    pub endpoints: usize,
    /// From the start of the process to everything in the kernel, in milliseconds.
    pub cold_ms: f64,
    /// The part of it in which the kernel was written to; unknown for kube-proxy.
    pub write_ms: Option<f64>,
    /// From the server's telling of one endpoint that went or came to the kernel, in milliseconds: the median.
    pub change_p50_ms: f64,
    /// The same, of 99 in a hundred.
    pub change_p99_ms: f64,
    /// How many changes were timed.
    pub changes: usize,
    /// Processor time that a change costs, that of other programs that it starts included, in milliseconds.
    pub cpu_per_change_ms: f64,
    /// The most memory that the process held, in MiB.
    pub peak_mib: f64,
}

/// Measures both; kube-proxy where it is there.
pub fn measure(mut tell: impl FnMut(&str)) -> Result<Vec<Scale>> {
    let mut rows = Vec::new();
    let beside = kube_proxy::is_there();
    if !beside {
        tell("kube-proxy is not measured: run `cargo xtask e2e` once, or set KUBEBUILDER_ASSETS");
    }
    for cluster in CLUSTERS {
        let what = format!("{} services, {} endpoints", cluster.services, cluster.total());
        tell(&format!("measuring sluice, {what} ..."));
        rows.push(told(sluice::measure(cluster)?, &mut tell));
        for mode in [Mode::Nftables, Mode::Iptables] {
            if beside && (mode == Mode::Nftables || cluster.total() <= MOST_FOR_IPTABLES) {
                tell(&format!("measuring kube-proxy ({}), {what} ...", mode.name()));
                rows.push(told(kube_proxy::measure(cluster, mode)?, &mut tell));
            }
        }
    }
    Ok(rows)
}

/// What was measured is told at once: the whole takes minutes.
fn told(row: Scale, tell: &mut impl FnMut(&str)) -> Scale {
    tell(&format!(
        "... {:.0} ms cold, {:.2} ms a change, {:.2} ms of CPU, {:.0} MiB",
        row.cold_ms, row.change_p50_ms, row.cpu_per_change_ms, row.peak_mib
    ));
    row
}

/// For people.
pub fn text(rows: &[Scale]) -> String {
    let rows = rows.iter().map(|row| {
        let Scale {
            proxy,
            services,
            endpoints,
            cold_ms,
            write_ms,
            change_p50_ms,
            change_p99_ms,
            changes,
            cpu_per_change_ms,
            peak_mib,
        } = row;
        vec![
            proxy.clone(),
            services.to_string(),
            endpoints.to_string(),
            format!("{cold_ms:.0}"),
            write_ms.map_or_else(|| "-".to_owned(), |write| format!("{write:.0}")),
            format!("{change_p50_ms:.2}"),
            format!("{change_p99_ms:.2}"),
            changes.to_string(),
            format!("{cpu_per_change_ms:.2}"),
            format!("{peak_mib:.0}"),
        ]
    });
    let header = [
        "CONTROL",
        "SERVICES",
        "ENDPOINTS",
        "COLD MS",
        "WRITING",
        "CHANGE P50 MS",
        "P99",
        "OF",
        "CPU MS",
        "PEAK MIB",
    ];
    table(&header, 1, rows)
}

/// The value below which so many of a hundred are; 0 when there are none.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((values.len() * percent / 100).min(last))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let mut values: Vec<_> = (0..100).rev().map(f64::from).collect();
        assert!((percentile(&mut values, 50) - 50.0).abs() < f64::EPSILON);
        assert!((percentile(&mut values, 99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(&mut [7.0], 99) - 7.0).abs() < f64::EPSILON);
        assert!(percentile(&mut [], 50).abs() < f64::EPSILON);
    }
}
