//! HTTP Basic against an htpasswd file. To look at a password takes a quarter of a second of a
//! processor, on purpose: it is done by few threads of their own, and once for all who show the same.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;
use forebay_workflows::User;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{AuthError, lines};

/// Passwords that are looked at at a time; more wait, so that strangers leave processors to others.
const LOOKS_MAX: usize = 1;

/// Credentials that are remembered; the one that ends soonest makes room.
const REMEMBERED_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Basic {
    users: HashMap<String, String>,
    /// Somebody's: looked at for a stranger, who shall not learn from the time who is known.
    any_hash: String,
    cached_for: Duration,
    looks: Semaphore,
    right: Mutex<HashMap<Fingerprint, (User, Instant)>>,
    salt: [u64; 4],
}

type Fingerprint = [u8; 32];

impl Basic {
    /// Reads `name:hash` lines, each hash of bcrypt.
    pub fn read(path: &Path, cached_for: Duration) -> Result<Basic, AuthError> {
        let users = lines(path, |name, hash| match HashParts::from_str(hash) {
            Ok(_) if hash.starts_with("$2") => Ok((name.to_owned(), hash.to_owned())),
            _ => Err(format!("the hash of {name} is not of bcrypt: htpasswd -B makes such")),
        })?;
        let any_hash = users.first().map(|(_, hash)| hash.clone()).unwrap_or_default();
        let random = RandomState::new();
        Ok(Basic {
            users: users.into_iter().collect(),
            any_hash,
            cached_for,
            looks: Semaphore::new(LOOKS_MAX),
            right: Mutex::default(),
            salt: [0, 1, 2, 3].map(|place| random.hash_one(place)),
        })
    }

    /// Whose name and password these are, in base64.
    pub async fn user(self: Arc<Basic>, credentials: &str) -> Option<User> {
        let decoded = STANDARD.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
        let fingerprint = self.fingerprint(&decoded);
        if let Some(user) = self.remembered(&fingerprint) {
            return Some(user);
        }
        let _permit = self.looks.acquire().await.expect("the semaphore is never closed");
        // Somebody may have shown the same meanwhile.
        if let Some(user) = self.remembered(&fingerprint) {
            return Some(user);
        }
        let basic = Arc::clone(&self);
        let looked = tokio::task::spawn_blocking(move || {
            let (name, password) = decoded.split_once(':')?;
            let known = basic.users.get(name);
            let fits = bcrypt::verify(password, known.unwrap_or(&basic.any_hash)).unwrap_or(false);
            (fits && known.is_some()).then(|| User::new(name))
        });
        let user = looked.await.unwrap_or_else(|error| {
            tracing::error!(%error, "looking at a password panicked");
            None
        })?;
        self.remember(fingerprint, user.clone());
        Some(user)
    }

    /// Names the credentials without having them.
    fn fingerprint(&self, decoded: &str) -> Fingerprint {
        let mut digest = Sha256::new();
        for part in self.salt {
            digest.update(part.to_ne_bytes());
        }
        digest.update(decoded);
        digest.finalize().into()
    }

    fn remembered(&self, fingerprint: &Fingerprint) -> Option<User> {
        let right = self.right();
        right.get(fingerprint).filter(|(_, until)| Instant::now() < *until).map(|(user, _)| user.clone())
    }

    fn remember(&self, fingerprint: Fingerprint, user: User) {
        if self.cached_for.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut right = self.right();
        if right.len() >= REMEMBERED_MAX {
            right.retain(|_, (_, until)| now < *until);
        }
        if right.len() >= REMEMBERED_MAX {
            let soonest = right.iter().min_by_key(|(_, (_, until))| *until).map(|(fingerprint, _)| *fingerprint);
            if let Some(soonest) = soonest {
                right.remove(&soonest);
            }
        }
        right.insert(fingerprint, (user, now + self.cached_for));
    }

    fn right(&self) -> MutexGuard<'_, HashMap<Fingerprint, (User, Instant)>> {
        // Each entry is whole at any time.
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::htpasswd_of;

    fn basic(cached_for: Duration) -> Arc<Basic> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, htpasswd_of("ada")).unwrap();
        Arc::new(Basic::read(&path, cached_for).unwrap())
    }

    const ADA: &str = "YWRhOnNlY3JldA==";

    #[tokio::test]
    async fn a_password_that_was_right_is_not_looked_at_again_for_a_while() {
        let basic = basic(Duration::from_secs(3600));
        assert!(Arc::clone(&basic).user(ADA).await.is_some());
        // Nobody may look now: who is remembered need not wait.
        basic.looks.forget_permits(LOOKS_MAX);
        assert_eq!(Arc::clone(&basic).user(ADA).await.expect("it is remembered").name(), "ada");
        for (_, until) in basic.right().values_mut() {
            *until = Instant::now();
        }
        assert!(basic.remembered(&basic.fingerprint("ada:secret")).is_none(), "its time is over");
    }

    #[tokio::test]
    async fn a_wrong_password_is_not_remembered_nor_is_any_if_nothing_shall_be() {
        let remembering = basic(Duration::from_secs(3600));
        assert!(Arc::clone(&remembering).user("YWRhOndyb25n").await.is_none());
        assert!(remembering.right().is_empty());
        let forgetting = basic(Duration::ZERO);
        assert!(Arc::clone(&forgetting).user(ADA).await.is_some());
        assert!(forgetting.right().is_empty());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let basic = basic(Duration::from_secs(3600));
        for number in 0..REMEMBERED_MAX + 10 {
            basic.remember(basic.fingerprint(&number.to_string()), User::new("ada"));
        }
        assert_eq!(basic.right().len(), REMEMBERED_MAX);
        assert!(basic.remembered(&basic.fingerprint("0")).is_none(), "the oldest made room");
    }
}
