//! Mistakes in a configuration file, shown where they are.

use std::{io, ops::Range, path::PathBuf};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing or closed to us.
    #[error("cannot read the configuration {}: {source}; `--config FILE` names another", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is wrong in one or more places.
    #[error("{0}")]
    Invalid(String),
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes of the text.
    pub span: Range<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A file and its name.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Error {
    /// Shows every problem in its place, in the order of the file.
    pub(super) fn invalid(source: &Source, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        let shown: Vec<String> = problems.iter().map(|problem| source.show(problem)).collect();
        Self::Invalid(shown.join("\n"))
    }
}

impl Source {
    /// `file:line:column: message`, the line, and a caret under the place.
    fn show(&self, problem: &Problem) -> String {
        let (before, after) = self.text.split_at(self.text.floor_char_boundary(problem.span.start));
        let number = before.matches('\n').count() + 1;
        let head = before.rsplit('\n').next().unwrap_or_default();
        let tail = after.lines().next().unwrap_or_default();
        let column = head.chars().count() + 1;
        let marked = tail.floor_char_boundary(problem.span.len());
        let carets = "^".repeat(tail[..marked].chars().count().max(1));
        // A tab stays a tab, so that the caret stands under what it means at any tab width.
        let indent: String = head.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let gutter = " ".repeat(number.to_string().len());
        let (file, message) = (self.path.display(), &problem.message);
        format!(
            "{file}:{number}:{column}: {message}\n {gutter} |\n {number} | {head}{tail}\n {gutter} | {indent}{carets}"
        )
    }
}
