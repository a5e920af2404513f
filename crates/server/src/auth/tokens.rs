//! Bearer tokens: long random texts, of which a file has the SHA-256.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use forebay_workflows::User;
use sha2::{Digest, Sha256};

use super::{AuthError, lines};

/// Users by the digest of their token: a digest that is looked up tells nothing about the others.
#[derive(Debug)]
pub(super) struct Tokens(HashMap<String, User>);

impl Tokens {
    /// Reads `name:sha256` lines, the digest in hexadecimal.
    pub fn read(path: &Path) -> Result<Tokens, AuthError> {
        let users = lines(path, |name, digest| {
            let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_digest {
                return Err("not a SHA-256 in hexadecimal: printf %s TOKEN | sha256sum".to_owned());
            }
            Ok((digest.to_ascii_lowercase(), User::new(name)))
        });
        Ok(Tokens(users?.into_iter().collect()))
    }

    /// Whose token this is.
    pub fn user(&self, token: &str) -> Option<User> {
        self.0.get(&digest_of(token)).cloned()
    }
}

pub(super) fn digest_of(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        assert_eq!(digest_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
