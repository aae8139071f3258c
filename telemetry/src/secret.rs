//! A value that must not be seen: `Debug` hides it, and it comes from a file or the environment, never from argv.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};

/// A secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads the secret `name` from the environment: `NAME_FILE` names a file that holds it, `NAME` holds it
    /// itself. `None` when neither is set; an error that never shows the value when both are, or it is empty.
    pub fn from_environment(name: &str) -> anyhow::Result<Option<Self>> {
        let file_variable = format!("{name}_FILE");
        match (std::env::var(name), std::env::var_os(&file_variable)) {
            (Ok(_), Some(_)) => bail!("set only one of {name} and {file_variable}"),
            (Ok(text), None) if text.is_empty() => bail!("{name} is set but empty"),
            (Ok(text), None) => Ok(Some(Self(text))),
            (Err(std::env::VarError::NotUnicode(_)), _) => bail!("{name} is not UTF-8"),
            (Err(std::env::VarError::NotPresent), Some(path)) => Self::from_file(Path::new(&path))
                .with_context(|| format!("reading {file_variable}"))
                .map(Some),
            (Err(std::env::VarError::NotPresent), None) => Ok(None),
        }
    }

    fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the file {} cannot be read", path.display()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        if text.is_empty() {
            bail!("the file {} is empty", path.display());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
