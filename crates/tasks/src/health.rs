//! `grpc.health.v1.Health`, for who looks whether the server lives: as taskbroker's, it says that the
//! service does not serve while nothing gets into the store.

use std::time::Duration;

use forebay_engine::Counters;
use futures_util::FutureExt;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::Door;
use crate::proto::taskbroker::consumer_service_server::ConsumerServiceServer;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Looks in a row at which nothing was committed though there was something to commit: then it does not
/// serve. 5 s, as with taskbroker.
const STUCK: u32 = 5;

impl Door {
    /// It serves until the engine ends, and while commits go through.
    pub(crate) fn health(&self) -> HealthServer<impl Health + use<>> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let engine = self.engine().clone();
        // Known from the first call on: nobody else has a hand on it yet.
        let is_known = reporter.set_serving::<ConsumerServiceServer<Door>>().now_or_never().is_some();
        tokio::spawn(async move {
            if !is_known {
                reporter.set_serving::<ConsumerServiceServer<Door>>().await;
            }
            let mut pulse = Pulse::new(engine.counters());
            loop {
                tokio::select! {
                    biased;
                    _ = engine.stopped() => break,
                    () = tokio::time::sleep(LOOK) => {}
                }
                match pulse.look(engine.counters()) {
                    Some(true) => reporter.set_serving::<ConsumerServiceServer<Door>>().await,
                    Some(false) => reporter.set_not_serving::<ConsumerServiceServer<Door>>().await,
                    None => {}
                }
            }
            reporter.set_not_serving::<ConsumerServiceServer<Door>>().await;
        });
        health
    }
}

/// Whether commits go through, look by look.
struct Pulse {
    last: Counters,
    /// Looks since the last commit at which there was something to commit.
    still: u32,
}

impl Pulse {
    fn new(last: Counters) -> Pulse {
        Pulse { last, still: 0 }
    }

    /// Whether it serves, if that has changed.
    fn look(&mut self, now: Counters) -> Option<bool> {
        let is_stuck = self.still >= STUCK;
        if now.batches != self.last.batches {
            self.still = 0;
        } else if now.backlog > 0 || now.busy != self.last.busy {
            self.still = self.still.saturating_add(1);
        }
        self.last = now;
        let is = self.still >= STUCK;
        (is != is_stuck).then_some(!is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_while_commits_go_through_or_there_are_none() {
        let at = |batches, busy, backlog| Counters { batches, busy, backlog, ..Counters::default() };
        let mut pulse = Pulse::new(at(1, 0, 0));
        for _ in 0..100 {
            assert_eq!(pulse.look(at(1, 0, 0)), None, "idle");
        }
        // Each second a few tries, and each in vain.
        let looks: Vec<_> = (1..=8).map(|busy| pulse.look(at(1, busy, 0))).collect();
        assert_eq!(looks, [None, None, None, None, Some(false), None, None, None]);
        assert_eq!(pulse.look(at(1, 8, 0)), None, "one try that takes long is no news");
        assert_eq!(pulse.look(at(2, 9, 7)), Some(true));
        // A commit that hangs, and others that gather behind it.
        let looks: Vec<_> = (0..6).map(|_| pulse.look(at(2, 9, 7))).collect();
        assert_eq!(looks, [None, None, None, None, Some(false), None]);
        assert_eq!(pulse.look(at(9, 9, 0)), Some(true));
        for second in 10..100 {
            assert_eq!(pulse.look(at(second, 9, 7)), None, "busy as it should be");
        }
    }
}
