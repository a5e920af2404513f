//! To whom tasks are pushed, as it is asked for.

use std::num::NonZeroU16;
use std::time::Duration;

use forebay_tasks::push;
use serde::Deserialize;

use super::{ConfigError, duration, some_duration};

/// What one source says about workers that tasks are pushed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushSettings {
    /// Push the tasks of an application to workers that listen there, such as shop=10.0.0.7:50052,10.0.0.8:50052;
    /// may be said again. Other applications are pulled.
    #[arg(long = "push", id = "push", value_name = "APP=ADDR,ADDR", value_delimiter = ';', env = "FOREBAY_PUSH")]
    pub to: Vec<String>,
    /// Where such workers report to, if they know it from us alone (taskbroker-client 26.5.0), as HOST:PORT
    /// [default: where --grpc listens, as seen from here].
    #[arg(long = "push-callback", id = "push_callback", value_name = "ADDR", env = "FOREBAY_PUSH_CALLBACK")]
    pub callback: Option<String>,
    /// So many pushes to a worker may wait for its answer [default: 8].
    #[arg(long = "push-in-flight", id = "push_in_flight", value_name = "N", env = "FOREBAY_PUSH_IN_FLIGHT")]
    pub in_flight: Option<NonZeroU16>,
    /// How long a worker may take to answer a push, such as 30s, which is the default.
    #[arg(long = "push-timeout", id = "push_timeout", value_name = "TIME", value_parser = duration, env = "FOREBAY_PUSH_TIMEOUT")]
    #[serde(deserialize_with = "some_duration")]
    pub timeout: Option<Duration>,
}

impl PushSettings {
    /// This source, and below it another one.
    pub(super) fn over(self, below: PushSettings) -> PushSettings {
        PushSettings {
            to: if self.to.is_empty() { below.to } else { self.to },
            callback: self.callback.or(below.callback),
            in_flight: self.in_flight.or(below.in_flight),
            timeout: self.timeout.or(below.timeout),
        }
    }

    /// `listens`: whether there is a listener that workers can report to.
    pub(super) fn resolve(self, listens: bool) -> Result<push::Options, ConfigError> {
        let PushSettings { to, callback, in_flight, timeout } = self;
        if !to.is_empty() && !listens {
            let why = "workers that tasks are pushed to report over gRPC: --push goes with --grpc";
            return Err(ConfigError::Contradiction(why.to_owned()));
        }
        let default = push::Options::default();
        let mut endpoints = push::Endpoints::default();
        for text in &to {
            endpoints.add(text).map_err(ConfigError::Contradiction)?;
        }
        Ok(push::Options {
            endpoints,
            callback,
            in_flight_max: in_flight.map_or(default.in_flight_max, |most| most.get().into()),
            timeout: timeout.unwrap_or(default.timeout),
            quick: default.quick,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> PushSettings {
        PushSettings { to: vec![text.to_owned()], ..PushSettings::default() }
    }

    #[test]
    fn pushes_need_a_listener_and_endpoints_that_are_some() {
        let options = to("shop=a:1").over(to("mail=b:2")).resolve(true).unwrap();
        assert_eq!(options.endpoints.iter().collect::<Vec<_>>(), [("shop", "a:1")]);
        assert!(to("shop=a:1").resolve(false).unwrap_err().to_string().contains("--grpc"));
        assert!(to("shop").resolve(true).unwrap_err().to_string().contains("APPLICATION=HOST:PORT"));
        assert_eq!(PushSettings::default().resolve(false).unwrap(), push::Options::default());
    }

    #[test]
    fn a_file_says_it_as_flags_do() {
        let text = "[push]\nto = [\"shop=a:1,b:2\"]\ncallback = \"here:3\"\nin_flight = 2\ntimeout = \"5s\"";
        let options = super::super::Settings::parse(text).unwrap().push.resolve(true).unwrap();
        assert_eq!(options.endpoints.iter().collect::<Vec<_>>(), [("shop", "a:1"), ("shop", "b:2")]);
        assert_eq!((options.callback.as_deref(), options.in_flight_max), (Some("here:3"), 2));
        assert_eq!(options.timeout, Duration::from_secs(5));
    }
}
