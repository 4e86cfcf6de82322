//! Caches what one evaluation would otherwise compute repeatedly.
//!
//! A path from `$` inside a filter has the same result for every node that is tested. Without the cache, a join of the
//! rows of an event with themselves would cost the square of their number.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use regex::Regex;

use super::condition::Answer;
use super::{Flow, Stop, Visit};
use crate::document::Cursor;
use crate::form::Query;
use crate::pattern::{self, Extent, TooLarge};

/// The memory of one evaluation.
#[derive(Default)]
pub(super) struct Memo {
    /// By the query's address: a form does not move while it is evaluated.
    queries: RefCell<Vec<(*const Query, Known)>>,
    patterns: RefCell<HashMap<(String, Extent), Option<Regex>>>,
}

#[derive(Clone)]
enum Known {
    Exists(bool),
    /// The nodes' places in the event.
    Nodes(Rc<[u32]>),
    /// It finds values that it has made, and which are gone.
    Made,
}

impl Memo {
    /// Returns whether a query finds anything, computed once.
    pub(super) fn exists(&self, query: &Query, find_out: impl FnOnce() -> Answer) -> Answer {
        if let Some(Known::Exists(exists)) = self.known(query) {
            return Answer::Continue(exists);
        }
        let exists = find_out()?;
        self.remember(query, Known::Exists(exists));
        Answer::Continue(exists)
    }

    /// Returns the places of the nodes that a query finds, computed once; `None` where it makes values.
    pub(super) fn nodes(
        &self,
        query: &Query,
        root: Cursor<'_>,
        find_out: impl FnOnce(Visit<'_>) -> Flow,
    ) -> ControlFlow<Stop, Option<Rc<[u32]>>> {
        match self.known(query) {
            Some(Known::Nodes(nodes)) => return ControlFlow::Continue(Some(nodes)),
            Some(Known::Made) => return ControlFlow::Continue(None),
            Some(Known::Exists(_)) | None => {}
        }
        let (mut places, mut made) = (Vec::new(), false);
        find_out(&mut |node| {
            match node.place_in(root) {
                Some(place) => places.push(place),
                None => made = true,
            }
            Flow::Continue(())
        })?;
        if made {
            self.remember(query, Known::Made);
            return ControlFlow::Continue(None);
        }
        let places: Rc<[u32]> = places.into();
        self.remember(query, Known::Nodes(Rc::clone(&places)));
        ControlFlow::Continue(Some(places))
    }

    /// Returns a pattern of the event, compiled once.
    pub(super) fn regex(&self, pattern: &str, extent: Extent) -> Result<Option<Regex>, TooLarge> {
        let key = (pattern.to_owned(), extent);
        if let Some(known) = self.patterns.borrow().get(&key) {
            return Ok(known.clone());
        }
        let compiled = pattern::compile(pattern, extent)?;
        self.patterns.borrow_mut().insert(key, compiled.clone());
        Ok(compiled)
    }

    fn known(&self, query: &Query) -> Option<Known> {
        let queries = self.queries.borrow();
        queries.iter().find(|(known, _)| std::ptr::eq(*known, query)).map(|(_, known)| known.clone())
    }

    fn remember(&self, query: &Query, known: Known) {
        self.queries.borrow_mut().push((std::ptr::from_ref(query), known));
    }
}
