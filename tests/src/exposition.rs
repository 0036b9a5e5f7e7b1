//! Prometheus' text format, read strictly.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats>.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Metrics of one name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The names of its labels, without the one of buckets.
    pub labels: BTreeSet<String>,
    /// By name and labels as they are written.
    pub values: BTreeMap<String, f64>,
}

/// Every family of a page, by name. Fails on whatever Prometheus would not take.
pub fn parse(page: &str) -> Result<BTreeMap<String, Family>> {
    ensure!(page.ends_with('\n'), "the last line has no end");
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    let mut helped = BTreeSet::new();
    for line in page.lines() {
        let read = if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap_or((help, ""));
            ensure!(!text.is_empty(), "no help: {line}");
            ensure!(helped.insert(name.to_owned()), "a family in two places: {line}");
            continue;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').with_context(|| line.to_owned())?;
            ensure!(helped.contains(name), "a type without help: {line}");
            ensure!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = Family {
                kind: kind.to_owned(),
                ..Family::default()
            };
            ensure!(
                families.insert(name.to_owned(), family).is_none(),
                "twice: {line}"
            );
            name.clone_into(&mut current);
            continue;
        } else {
            families.get_mut(&current).context("a value before any type")
        };
        value(read?, &current, line).with_context(|| line.to_owned())?;
    }
    for (name, family) in &families {
        ensure!(!family.values.is_empty(), "{name} has no value");
        if family.kind == "histogram" {
            buckets(name, family).with_context(|| name.clone())?;
        }
    }
    Ok(families)
}

/// Takes one line of values.
fn value(family: &mut Family, name: &str, line: &str) -> Result<()> {
    let (series, number) = line.rsplit_once(' ').context("no value")?;
    let (metric, labels) = match series.split_once('{') {
        Some((metric, labels)) => (metric, labels.strip_suffix('}').context("no end of labels")?),
        None => (series, ""),
    };
    let suffix = metric.strip_prefix(name).context("of another family")?;
    let fits = match family.kind.as_str() {
        "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
        _ => suffix.is_empty(),
    };
    ensure!(fits, "not of a {}", family.kind);
    ensure!(
        metric
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
        "no name of a metric"
    );
    for label in labels.split_terminator("\",").filter(|label| !label.is_empty()) {
        let (label, value) = label.split_once("=\"").context("a label without value")?;
        ensure!(!value.trim_end_matches('"').contains('"'), "a quote in a value");
        if label != "le" {
            family.labels.insert(label.to_owned());
        }
    }
    let number: f64 = number.parse().context("no number")?;
    ensure!(number.is_finite() && number >= 0.0, "an odd number");
    let before = family.values.insert(series.to_owned(), number);
    ensure!(before.is_none(), "twice");
    Ok(())
}

/// Buckets grow, and the last one is the count.
fn buckets(name: &str, family: &Family) -> Result<()> {
    // In the order of the page they would stand in order; here they are sorted as text.
    let mut series = BTreeMap::<String, Vec<(f64, f64)>>::new();
    for (key, count) in &family.values {
        let Some(labels) = key.strip_prefix(&format!("{name}_bucket")) else {
            continue;
        };
        let (before, rest) = labels.split_once("le=\"").context("a bucket without bound")?;
        let (bound, after) = rest.split_once('"').context("a bound without end")?;
        let bound = if bound == "+Inf" {
            f64::INFINITY
        } else {
            bound.parse()?
        };
        let others = format!("{before}{after}").replace([',', '{', '}'], "");
        series.entry(others).or_default().push((bound, *count));
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        ensure!(
            buckets.is_sorted_by(|a, b| a.1 <= b.1),
            "{labels}: buckets shrink"
        );
        let Some((bound, all)) = buckets.last() else {
            bail!("no buckets")
        };
        ensure!(bound.is_infinite(), "{labels}: no last bucket");
        let key = family.values.keys().find(|key| {
            key.strip_prefix(&format!("{name}_count"))
                .is_some_and(|rest| rest.replace([',', '{', '}'], "") == labels)
        });
        let count = key.and_then(|key| family.values.get(key));
        ensure!(count == Some(all), "{labels}: the count is {count:?}, not {all}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "# HELP a_total What.\n# TYPE a_total counter\na_total{code=\"200\"} 3\na_total{code=\"503\"} 0\n\
                    # HELP b How long.\n# TYPE b histogram\nb_bucket{le=\"0.5\"} 1\nb_bucket{le=\"+Inf\"} 2\nb_sum 1.5\nb_count 2\n";
        let families = parse(page).unwrap();
        assert_eq!(families["a_total"].kind, "counter");
        assert_eq!(families["a_total"].labels, BTreeSet::from(["code".to_owned()]));
        let value = families["a_total"].values["a_total{code=\"200\"}"];
        assert!((value - 3.0).abs() < f64::EPSILON, "{value}");
        assert!(families["b"].labels.is_empty());
    }

    #[test]
    fn what_prometheus_would_not_take_is_refused() {
        let head = "# HELP a What.\n# TYPE a gauge\n";
        let histogram = "# HELP a What.\n# TYPE a histogram\n";
        let bad = [
            "a 1\n".to_owned(),
            format!("{head}a 1"),
            format!("{head}b 1\n"),
            format!("{head}a 1\na 2\n"),
            format!("{head}a one\n"),
            format!("{head}a{{b}} 1\n"),
            head.to_owned(),
            format!("{head}a 1\n{head}a 1\n"),
            format!("{histogram}a_bucket{{le=\"1\"}} 1\na_sum 1\na_count 1\n"),
            format!("{histogram}a_bucket{{le=\"1\"}} 2\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 1\n"),
            format!("{histogram}a_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 2\n"),
        ];
        for page in bad {
            assert!(parse(&page).is_err(), "{page}");
        }
    }
}
