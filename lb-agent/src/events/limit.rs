//! Which Events are worth publishing: none that was published a short time ago, and not too many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::{ObjectRef, Problem};

/// For how long the same is not published again.
const FORGET: Duration = Duration::from_mins(10);
/// Of one object, as for Kubernetes' own clients: so many at once, and one more each time after this.
const OF_OBJECT: Rate = Rate {
    burst: 25,
    every: Duration::from_mins(5),
};
/// Of all objects together.
const OF_ALL: Rate = Rate {
    burst: 100,
    every: Duration::from_millis(200),
};

/// So many at once, and one more each time after this.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// What is left of a rate: by when it will be whole again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    whole_at: Instant,
}

/// What is to become of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Publish,
    Repeated,
    Limited,
}

/// Remembers what was published.
#[derive(Debug)]
pub(super) struct Limiter {
    published: BTreeMap<Problem, Instant>,
    objects: BTreeMap<Option<ObjectRef>, Bucket>,
    all: Bucket,
    tidied: Instant,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            published: BTreeMap::new(),
            objects: BTreeMap::new(),
            all: Bucket { whole_at: now },
            tidied: now,
        }
    }

    /// Decides on an Event, and takes it as published if it may be.
    pub(super) fn admit(&mut self, problem: &Problem, now: Instant) -> Verdict {
        self.tidy(now);
        let last = self.published.get(problem);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < FORGET) {
            return Verdict::Repeated;
        }
        let object = self
            .objects
            .entry(problem.object.clone())
            .or_insert(Bucket { whole_at: now });
        if !(object.has(OF_OBJECT, now) && self.all.has(OF_ALL, now)) {
            return Verdict::Limited;
        }
        object.take(OF_OBJECT, now);
        self.all.take(OF_ALL, now);
        self.published.insert(problem.clone(), now);
        Verdict::Publish
    }

    /// Forgets an Event that was admitted and could not be published, so that it may be tried again.
    pub(super) fn forget(&mut self, problem: &Problem) {
        self.published.remove(problem);
    }

    /// Forgets what makes no difference any more.
    fn tidy(&mut self, now: Instant) {
        if now.saturating_duration_since(self.tidied) < FORGET {
            return;
        }
        self.tidied = now;
        self.published
            .retain(|_, at| now.saturating_duration_since(*at) < FORGET);
        self.objects.retain(|_, bucket| bucket.whole_at > now);
    }
}

impl Bucket {
    fn has(self, rate: Rate, now: Instant) -> bool {
        self.whole_at.saturating_duration_since(now) + rate.every <= rate.every * rate.burst
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.whole_at = self.whole_at.max(now) + rate.every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, ObjectName, Origin, Reason};

    fn problem(service: u32, text: u32) -> Problem {
        Problem {
            object: Some(ObjectRef {
                kind: Kind::Service,
                name: ObjectName::new("default", &format!("web-{service}")),
            }),
            origin: Origin::default(),
            reason: Reason::FieldIgnored,
            text: format!("text {text}"),
        }
    }

    #[test]
    fn the_same_is_published_once_in_a_while() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let mut admit =
            |seconds, text| limiter.admit(&problem(0, text), start + Duration::from_secs(seconds));
        assert_eq!(admit(0, 0), Verdict::Publish);
        assert_eq!(admit(1, 0), Verdict::Repeated);
        assert_eq!(admit(1, 1), Verdict::Publish);
        assert_eq!(admit(599, 0), Verdict::Repeated);
        assert_eq!(admit(600, 0), Verdict::Publish);
    }

    #[test]
    fn what_failed_may_be_tried_again() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        assert_eq!(limiter.admit(&problem(0, 0), start), Verdict::Publish);
        limiter.forget(&problem(0, 0));
        assert_eq!(limiter.admit(&problem(0, 0), start), Verdict::Publish);
    }

    #[test]
    fn an_object_has_so_many_at_once_and_one_more_every_five_minutes() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        for text in 0..25 {
            assert_eq!(
                limiter.admit(&problem(0, text), start),
                Verdict::Publish,
                "{text}"
            );
        }
        assert_eq!(limiter.admit(&problem(0, 25), start), Verdict::Limited);
        assert_eq!(limiter.admit(&problem(1, 25), start), Verdict::Publish);
        let later = start + Duration::from_mins(5);
        assert_eq!(limiter.admit(&problem(0, 25), later), Verdict::Publish);
        assert_eq!(limiter.admit(&problem(0, 26), later), Verdict::Limited);
    }

    #[test]
    fn all_together_are_not_too_many() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let admitted = |limiter: &mut Limiter, now| {
            let verdicts = (0..1000).map(|service| limiter.admit(&problem(service, 0), now));
            verdicts.filter(|verdict| *verdict == Verdict::Publish).count()
        };
        assert_eq!(admitted(&mut limiter, start), 100);
        assert_eq!(admitted(&mut limiter, start + Duration::from_secs(1)), 5);
    }

    #[test]
    fn what_makes_no_difference_is_forgotten() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        for service in 0..50 {
            limiter.admit(&problem(service, 0), start);
        }
        limiter.admit(&problem(1000, 0), start + Duration::from_mins(20));
        assert_eq!((limiter.published.len(), limiter.objects.len()), (1, 1));
    }
}
