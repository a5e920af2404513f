//! The file of rules for tasks: read at the start, and again whenever it says something else.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use forebay_tasks::{BadRules, Door as Tasks, Rules};
use tokio::sync::watch;

use crate::told_to_stop;

/// How often it is looked whether the file says something else.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A file of rules, and what it said last.
pub(crate) struct RulesFile {
    path: PathBuf,
    said: String,
    /// It could not be read when it was last looked at.
    is_lost: bool,
}

/// What there is to be said of a file that was looked at again.
#[derive(Debug)]
enum News {
    Rules(Rules),
    Bad(BadRules),
    Lost(io::Error),
}

impl RulesFile {
    pub fn open(path: PathBuf) -> io::Result<RulesFile> {
        let said = fs::read_to_string(&path)?;
        Ok(RulesFile { path, said, is_lost: false })
    }

    pub fn rules(&self) -> Result<Rules, BadRules> {
        Rules::parse(&self.said)
    }

    /// Hands new rules to the door until it is told to stop. What it cannot use it tells the log, once, and
    /// the rules stay as they were.
    pub async fn follow(mut self, tasks: Tasks, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = told_to_stop(&mut stopping) => return,
            }
            let looked = tokio::task::spawn_blocking(move || {
                let news = self.look();
                (self, news)
            });
            let Ok((back, news)) = looked.await else { return };
            self = back;
            let path = self.path.display();
            match news {
                None => {}
                Some(News::Rules(rules)) => match tasks.set_rules(rules).await {
                    Ok(()) => tracing::info!(%path, "the rules for tasks are read again"),
                    Err(forebay_engine::Error::Stopping) => return,
                    Err(error) => {
                        tracing::error!(%path, %error, "the rules for tasks are not taken");
                        // So that they are tried again.
                        self.said.clear();
                    }
                },
                Some(News::Bad(bad)) => tracing::error!(%path, %bad, "the rules for tasks stay as they were"),
                Some(News::Lost(error)) => tracing::error!(%path, %error, "the rules for tasks stay as they were"),
            }
        }
    }

    fn look(&mut self) -> Option<News> {
        match fs::read_to_string(&self.path) {
            Ok(text) => {
                self.is_lost = false;
                if text == self.said {
                    return None;
                }
                self.said = text;
                Some(self.rules().map_or_else(News::Bad, News::Rules))
            }
            Err(error) => {
                let news = (!self.is_lost).then_some(News::Lost(error));
                self.is_lost = true;
                news
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_says_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        assert!(RulesFile::open(path.clone()).is_err());
        fs::write(&path, "").unwrap();
        let mut file = RulesFile::open(path.clone()).unwrap();
        assert_eq!(file.rules(), Ok(Rules::default()));
        assert!(file.look().is_none());
        fs::write(&path, "[[drop]]\ntask = \"spam\"\n").unwrap();
        assert!(matches!(file.look(), Some(News::Rules(rules)) if rules != Rules::default()));
        assert!(file.look().is_none());
        fs::write(&path, "[[drop]]\ntsk = \"spam\"\n").unwrap();
        assert!(matches!(file.look(), Some(News::Bad(BadRules { line: Some(2), .. }))));
        assert!(file.look().is_none());
        fs::remove_file(&path).unwrap();
        assert!(matches!(file.look(), Some(News::Lost(_))));
        assert!(file.look().is_none());
        fs::write(&path, "").unwrap();
        assert!(matches!(file.look(), Some(News::Rules(_))));
    }
}
