//! Who sent a request: HTTP Basic against an htpasswd file, as torc's client sends it, and bearer
//! tokens, which are ours. It is asked before a door is, away from the threads that serve others.

mod basic;
mod tokens;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_workflows::User;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use basic::Basic;
use tokens::Tokens;

/// Who may come in. Plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Users and their bcrypt hashes, as `htpasswd -B` writes them.
    pub htpasswd: Option<PathBuf>,
    /// Users and the SHA-256 of their tokens.
    pub tokens: Option<PathBuf>,
    /// Refuse who says nothing; otherwise he is anonymous.
    pub required: bool,
    /// How long a password that was right is not looked at again.
    pub cached_for: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { htpasswd: None, tokens: None, required: false, cached_for: Duration::from_secs(60) }
    }
}

/// Why nobody could be told from anybody.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}, line {line}: {why}", path.display())]
    Line { path: PathBuf, line: usize, why: String },
    #[error("{}: there is nobody in it", path.display())]
    Nobody { path: PathBuf },
    #[error("credentials are required, but no file says which are right: auth.htpasswd or auth.tokens is missing")]
    NoFile,
}

/// Looks at credentials. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    basic: Option<Arc<Basic>>,
    tokens: Option<Arc<Tokens>>,
    required: bool,
}

/// Who says what cannot be accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unauthorized;

impl Gate {
    /// Reads the files.
    pub fn new(options: &Options) -> Result<Gate, AuthError> {
        if options.required && options.htpasswd.is_none() && options.tokens.is_none() {
            return Err(AuthError::NoFile);
        }
        let basic = options.htpasswd.as_deref().map(|path| Basic::read(path, options.cached_for)).transpose()?;
        let tokens = options.tokens.as_deref().map(Tokens::read).transpose()?;
        Ok(Gate { basic: basic.map(Arc::new), tokens: tokens.map(Arc::new), required: options.required })
    }

    /// Whose credentials these are; `None` for somebody who shows none that we know how to look at.
    pub async fn user(&self, headers: &HeaderMap) -> Result<Option<User>, Unauthorized> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, rest) = shown.and_then(|text| text.split_once(' ')).unwrap_or_default();
        let rest = rest.trim();
        let user = if let (Some(basic), true) = (&self.basic, scheme.eq_ignore_ascii_case("basic")) {
            Some(Arc::clone(basic).user(rest).await.ok_or(Unauthorized)?)
        } else if let (Some(tokens), true) = (&self.tokens, scheme.eq_ignore_ascii_case("bearer")) {
            Some(tokens.user(rest).ok_or(Unauthorized)?)
        } else {
            None
        };
        if user.is_none() && self.required {
            return Err(Unauthorized);
        }
        Ok(user)
    }
}

/// torc's answer.
pub(crate) fn unauthorized() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("Unauthorized"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Torc\""));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The `name:secret` lines of a file; empty ones and those that begin with `#` are passed over.
fn lines<T>(
    path: &std::path::Path,
    mut read: impl FnMut(&str, &str) -> Result<T, String>,
) -> Result<Vec<T>, AuthError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| AuthError::Unreadable { path: path.to_owned(), source })?;
    let mut found = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |why| AuthError::Line { path: path.to_owned(), line: place + 1, why };
        let (name, secret) = line.split_once(':').ok_or_else(|| bad("not of the form name:secret".to_owned()))?;
        let (name, secret) = (name.trim(), secret.trim());
        if name.is_empty() {
            return Err(bad("a name is missing".to_owned()));
        }
        found.push(read(name, secret).map_err(bad)?);
    }
    if found.is_empty() {
        return Err(AuthError::Nobody { path: path.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// `secret`, at the lowest cost there is.
    pub(crate) fn htpasswd_of(name: &str) -> String {
        format!("{name}:{}\n", bcrypt::hash("secret", 4).expect("the cost is allowed"))
    }

    fn gate(required: bool) -> (Gate, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (htpasswd, tokens) = (folder.path().join("users"), folder.path().join("tokens"));
        fs::write(&htpasswd, format!("# people\n\n{}", htpasswd_of("ada"))).unwrap();
        fs::write(&tokens, format!("ci:{}\n", tokens::digest_of("t0ken"))).unwrap();
        let options = Options { htpasswd: Some(htpasswd), tokens: Some(tokens), required, ..Options::default() };
        (Gate::new(&options).unwrap(), folder)
    }

    async fn shown(gate: &Gate, authorization: &str) -> Result<Option<String>, Unauthorized> {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        Ok(gate.user(&headers).await?.map(|user| user.name().to_owned()))
    }

    #[tokio::test]
    async fn who_shows_the_right_credentials_is_known_by_his_name() {
        let (gate, _folder) = gate(true);
        // ada:secret
        assert_eq!(shown(&gate, "Basic YWRhOnNlY3JldA==").await, Ok(Some("ada".into())));
        assert_eq!(shown(&gate, "bearer t0ken").await, Ok(Some("ci".into())));
    }

    #[tokio::test]
    async fn wrong_credentials_are_refused_and_none_where_some_are_required() {
        for required in [true, false] {
            let (gate, _folder) = gate(required);
            // ada:wrong, bob:secret, no base64, no colon.
            for bad in ["Basic YWRhOndyb25n", "Basic Ym9iOnNlY3JldA==", "Basic ?", "Basic YWRh", "Bearer other"] {
                assert_eq!(shown(&gate, bad).await, Err(Unauthorized), "{bad}");
            }
            let none = if required { Err(Unauthorized) } else { Ok(None) };
            assert_eq!(shown(&gate, "").await, none);
            assert_eq!(shown(&gate, "Digest x").await, none);
        }
    }

    #[test]
    fn a_file_that_says_nothing_useful_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let said = |text: &str| {
            fs::write(&path, text).unwrap();
            let options = Options { htpasswd: Some(path.clone()), ..Options::default() };
            Gate::new(&options).unwrap_err().to_string()
        };
        assert!(said("# x\nada\n").contains("line 2"));
        assert!(said("ada:$apr1$x$y").contains("htpasswd -B"));
        assert!(said("#\n").contains("nobody"));
        let required = Options { required: true, ..Options::default() };
        assert!(matches!(Gate::new(&required), Err(AuthError::NoFile)));
    }
}
