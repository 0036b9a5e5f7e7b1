//! Annotations. A bad one is told and has no effect; the object is used all the same.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::field;
use crate::model::{Algorithm, Forwarding, ServiceOptions, Share};

/// What all of ours begin with.
const PREFIX: &str = "sluice.dev/";
const ALGORITHM: &str = "sluice.dev/algorithm";
const FORWARDING: &str = "sluice.dev/forwarding";
const SPLIT: &str = "sluice.dev/split";
const WEIGHT: &str = "sluice.dev/weight";
const LIMIT: &str = "sluice.dev/limit-connections-per-second";
const SOURCE_LIMIT: &str = "sluice.dev/limit-connections-per-second-per-source";
/// Kubernetes' own.
const CHANGED_AT: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The largest weight of a slice, and of a Service in a split.
const MAX_WEIGHT: u32 = 1000;
/// Services that one may be split between.
const MAX_SHARES: usize = 16;

/// The annotations of one object.
struct Annotations<'a> {
    all: &'a BTreeMap<String, String>,
    notices: &'a mut Vec<String>,
}

/// What a Service's annotations ask for.
pub(super) fn service_options(metadata: &ObjectMeta, notices: &mut Vec<String>) -> ServiceOptions {
    let Some(all) = &metadata.annotations else {
        return ServiceOptions::default();
    };
    let mut annotations = Annotations { all, notices };
    annotations.tell_others(&[ALGORITHM, FORWARDING, SPLIT, LIMIT, SOURCE_LIMIT]);
    ServiceOptions {
        algorithm: annotations.word(
            ALGORITHM,
            &Algorithm::ALL,
            "use maglev, hash, round-robin or least-connections",
        ),
        forwarding: annotations.word(FORWARDING, &Forwarding::ALL, "use dsr or snat"),
        split: annotations.split().unwrap_or_default(),
        limit: annotations.number(LIMIT, 1, u32::MAX, "there is no limit"),
        source_limit: annotations.number(SOURCE_LIMIT, 1, u32::MAX, "there is no limit"),
    }
}

/// The weight of a slice's endpoints; 1 when nothing is said.
pub(super) fn weight(metadata: &ObjectMeta, notices: &mut Vec<String>) -> u32 {
    let Some(all) = &metadata.annotations else {
        return 1;
    };
    let mut annotations = Annotations { all, notices };
    annotations.tell_others(&[WEIGHT]);
    let weight = annotations.number(WEIGHT, 0, MAX_WEIGHT, "its endpoints weigh 1");
    weight.unwrap_or(1)
}

/// When the change happened that made a slice what it is, as the controller of slices tells.
pub(super) fn changed_at(metadata: &ObjectMeta, notices: &mut Vec<String>) -> Option<SystemTime> {
    let text = metadata.annotations.as_ref()?.get(CHANGED_AT)?;
    match humantime::parse_rfc3339(text) {
        Ok(time) => Some(time),
        Err(error) => {
            notices.push(format!(
                "metadata.annotations[{CHANGED_AT}]: \"{text}\" is no time ({error}); it is not measured how long this change took"
            ));
            None
        }
    }
}

impl<'a> Annotations<'a> {
    /// Tells of annotations that look like ours and are not known.
    fn tell_others(&mut self, known: &[&str]) {
        let ours = self.all.keys().filter(|name| name.starts_with(PREFIX));
        for name in ours.filter(|name| !known.contains(&name.as_str())) {
            self.notices.push(format!(
                "metadata.annotations[{name}] is unknown here and has no effect"
            ));
        }
    }

    /// One of some words.
    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)], hint: &str) -> Option<T> {
        let value = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            self.tell(
                name,
                &format!("\"{value}\" is unknown; {hint}; until then the default is used"),
            );
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// A whole number.
    fn number(&mut self, name: &str, min: u32, max: u32, otherwise: &str) -> Option<u32> {
        let value = self.text(name)?;
        let number = value.parse().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            let text =
                format!("\"{value}\" is no whole number from {min} to {max}; until it is mended {otherwise}");
            self.tell(name, &text);
        }
        number
    }

    /// The Services that share the traffic; `None` when it cannot be told.
    fn split(&mut self) -> Option<Vec<Share>> {
        let value = self.text(SPLIT)?;
        let shares = shares(value);
        if let Err(why) = &shares {
            self.tell(
                SPLIT,
                &format!("{why}; until it is mended the Service's own endpoints are used"),
            );
        }
        shares.ok()
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.all.get(name).map(|value| value.trim())
    }

    fn tell(&mut self, name: &str, what: &str) {
        self.notices.push(format!("metadata.annotations[{name}]: {what}"));
    }
}

/// Such as `web-v1=90,web-v2=10`.
fn shares(text: &str) -> Result<Vec<Share>, String> {
    let mut shares = Vec::<Share>::new();
    for part in text.split(',') {
        let (service, weight) = part
            .split_once('=')
            .map(|(service, weight)| (service.trim(), weight.trim()))
            .filter(|(service, _)| field::check_label(SPLIT, service).is_ok() && !service.is_empty())
            .ok_or_else(|| format!("\"{part}\" is no share such as web-v1=90"))?;
        let weight: u32 = weight
            .parse()
            .ok()
            .filter(|weight| *weight <= MAX_WEIGHT)
            .ok_or_else(|| format!("\"{weight}\" is no whole number from 0 to {MAX_WEIGHT}"))?;
        if shares.iter().any(|other| &*other.service == service) {
            return Err(format!("{service} is there twice"));
        }
        shares.push(Share {
            service: service.into(),
            weight,
        });
    }
    if shares.len() > MAX_SHARES {
        return Err(format!("it names more than {MAX_SHARES} Services"));
    }
    if shares.iter().all(|share| share.weight == 0) {
        return Err("no share is larger than 0".to_owned());
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives these annotations to a Service; compares what they mean with what is told.
    #[track_caller]
    fn check(annotations: &[(&str, &str)], expected: &ServiceOptions, told: &[&str]) {
        let mut notices = Vec::new();
        assert_eq!(service_options(&metadata(annotations), &mut notices), *expected);
        assert_eq!(notices, told);
    }

    fn metadata(annotations: &[(&str, &str)]) -> ObjectMeta {
        let annotations = annotations
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ObjectMeta {
            annotations: Some(annotations.collect()),
            ..ObjectMeta::default()
        }
    }

    fn share(service: &str, weight: u32) -> Share {
        Share {
            service: service.into(),
            weight,
        }
    }

    #[test]
    fn annotations_become_options() {
        check(&[("example.com/algorithm", "x")], &ServiceOptions::default(), &[]);
        check(
            &[
                (ALGORITHM, " least-connections "),
                (FORWARDING, "dsr"),
                (SPLIT, "web-v1=90, web-v2=10,old=0"),
                (LIMIT, "1000"),
                (SOURCE_LIMIT, "10"),
            ],
            &ServiceOptions {
                algorithm: Some(Algorithm::LeastConnections),
                forwarding: Some(Forwarding::Dsr),
                split: vec![share("web-v1", 90), share("web-v2", 10), share("old", 0)],
                limit: Some(1000),
                source_limit: Some(10),
            },
            &[],
        );
    }

    #[test]
    fn bad_annotations_are_told_and_have_no_effect() {
        check(
            &[
                (ALGORITHM, "fastest"),
                (FORWARDING, ""),
                (LIMIT, "0"),
                (SOURCE_LIMIT, "ten"),
                ("sluice.dev/algoritm", "hash"),
            ],
            &ServiceOptions::default(),
            &[
                "metadata.annotations[sluice.dev/algoritm] is unknown here and has no effect",
                "metadata.annotations[sluice.dev/algorithm]: \"fastest\" is unknown; use maglev, hash, round-robin or \
                 least-connections; until then the default is used",
                "metadata.annotations[sluice.dev/forwarding]: \"\" is unknown; use dsr or snat; until then the default \
                 is used",
                "metadata.annotations[sluice.dev/limit-connections-per-second]: \"0\" is no whole number from 1 to \
                 4294967295; until it is mended there is no limit",
                "metadata.annotations[sluice.dev/limit-connections-per-second-per-source]: \"ten\" is no whole number \
                 from 1 to 4294967295; until it is mended there is no limit",
            ],
        );
    }

    #[test]
    fn a_split_that_cannot_be_told_is_none() {
        for (text, why) in [
            ("", "\"\" is no share such as web-v1=90"),
            ("web-v1", "\"web-v1\" is no share such as web-v1=90"),
            ("=90", "\"=90\" is no share such as web-v1=90"),
            ("web/v1=90", "\"web/v1=90\" is no share such as web-v1=90"),
            ("a=1,b=1001", "\"1001\" is no whole number from 0 to 1000"),
            ("a=1,a=2", "a is there twice"),
            ("a=0,b=0", "no share is larger than 0"),
        ] {
            let told = format!(
                "metadata.annotations[sluice.dev/split]: {why}; until it is mended the Service's own endpoints are used"
            );
            check(&[(SPLIT, text)], &ServiceOptions::default(), &[&told]);
        }
    }

    #[test]
    fn a_slice_has_a_weight() {
        for (text, weight, told) in [
            ("0", 0, 0),
            ("1000", 1000, 0),
            ("1001", 1, 1),
            ("-1", 1, 1),
            ("much", 1, 1),
        ] {
            let mut notices = Vec::new();
            assert_eq!(super::weight(&metadata(&[(WEIGHT, text)]), &mut notices), weight);
            assert_eq!(notices.len(), told, "{notices:?}");
        }
        assert_eq!(super::weight(&ObjectMeta::default(), &mut Vec::new()), 1);
    }
}
