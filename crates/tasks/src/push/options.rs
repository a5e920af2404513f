//! Where to push, and within which bounds.

use std::collections::BTreeMap;
use std::time::Duration;

/// The bounds of pushes. Plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub endpoints: Endpoints,
    /// Where workers are to report to, as `host:port`; where this server listens if nobody says.
    pub callback: Option<String>,
    /// Pushes to one endpoint that have no answer yet.
    pub in_flight_max: usize,
    /// How long a worker may take to answer a push.
    pub timeout: Duration,
    /// A worker that answers sooner had room, and may be sent one more at a time.
    pub quick: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            endpoints: Endpoints::default(),
            callback: None,
            in_flight_max: 8,
            timeout: Duration::from_secs(30),
            quick: Duration::from_millis(100),
        }
    }
}

/// Where the workers of applications listen, as `host:port`. An application that is not here is pulled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints(BTreeMap<String, Vec<String>>);

impl Endpoints {
    /// More workers, said as `APPLICATION=HOST:PORT[,HOST:PORT…]`.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (application, addresses) = text.split_once('=').ok_or_else(|| bad(text))?;
        if application.is_empty() {
            return Err(bad(text));
        }
        let of = self.0.entry(application.to_owned()).or_default();
        for address in addresses.split(',') {
            let address = address.strip_prefix("http://").unwrap_or(address);
            let (host, port) = address.rsplit_once(':').ok_or_else(|| bad(text))?;
            let is_good = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
            if !is_good || format!("http://{address}").parse::<tonic::codegen::http::Uri>().is_err() {
                return Err(bad(text));
            }
            // Twice would be twice as many pushes to it.
            if !of.iter().any(|known| known == address) {
                of.push(address.to_owned());
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this application's tasks are pushed.
    #[must_use]
    pub fn contains(&self, application: &str) -> bool {
        self.0.contains_key(application)
    }

    /// Each application with each of its endpoints.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, addresses)| addresses.iter().map(move |address| (&**name, &**address)))
    }
}

fn bad(text: &str) -> String {
    format!("{text:?} is no such thing; write APPLICATION=HOST:PORT[,HOST:PORT...], such as shop=10.0.0.7:50052")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_said_by_application() {
        let mut endpoints = Endpoints::default();
        assert!(endpoints.is_empty());
        for text in ["shop=a:1,b:2", "mail=[::1]:50052", "shop=http://c:3,a:1"] {
            endpoints.add(text).unwrap();
        }
        let all: Vec<_> = endpoints.iter().collect();
        assert_eq!(all, [("mail", "[::1]:50052"), ("shop", "a:1"), ("shop", "b:2"), ("shop", "c:3")]);
        assert!(endpoints.contains("shop") && !endpoints.contains("sho"));
    }

    #[test]
    fn what_is_no_endpoint_is_told() {
        for text in
            ["shop", "shop=", "=a:1", "shop=a", "shop=a:0", "shop=a:99999", "shop=a:1,", "shop=:1", "shop=a b:1"]
        {
            let why = Endpoints::default().add(text).unwrap_err();
            assert!(why.contains("APPLICATION=HOST:PORT"), "{text}: {why}");
        }
    }
}
