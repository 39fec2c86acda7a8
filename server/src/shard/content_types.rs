//! The content types that a shard has met, each with the head that its replies begin with.
//!
//! Entries hold an index into this table. It only grows, up to a bound that is far above what a
//! data set has; a type beyond it is served as plain bytes.

use crate::http::{HeadTemplate, Replies as Heads};
use crate::mesh::ContentType;

#[derive(Debug)]
pub(super) struct ContentTypes {
    names: Vec<ContentType>,
    templates: Vec<HeadTemplate>,
}

impl ContentTypes {
    /// A table of at most `count_max` types, the first of which is served for all beyond.
    pub(super) fn new(count_max: u8, heads: &Heads) -> Self {
        let mut names = Vec::with_capacity(usize::from(count_max));
        let mut templates = Vec::with_capacity(usize::from(count_max));
        names.push(ContentType::BYTES);
        templates.push(heads.template(ContentType::BYTES.as_str().as_bytes()));
        Self { names, templates }
    }

    /// The index of `name`, which is new or known.
    pub(super) fn intern(&mut self, name: ContentType, heads: &Heads) -> u8 {
        let known = self.names.iter().position(|other| *other == name);
        let index = known.unwrap_or_else(|| {
            if self.names.len() == self.names.capacity() {
                return 0;
            }
            self.names.push(name);
            self.templates.push(heads.template(name.as_str().as_bytes()));
            self.names.len() - 1
        });
        u8::try_from(index).expect("the bound is below 256")
    }

    /// The type of this index.
    pub(super) fn name(&self, index: u8) -> ContentType {
        self.names[usize::from(index)]
    }

    /// The head of this index.
    pub(super) fn template(&self, index: u8) -> &HeadTemplate {
        &self.templates[usize::from(index)]
    }
}
