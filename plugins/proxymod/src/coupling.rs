//! The three known couplings: which models run, for which years, and whose tables each one reads.

use std::fmt;

/// A built-in coupling; the name of the model's file chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coupling {
    Loose,
    Tight,
    TightTwoway,
}

/// One run of one model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The index of the model and of its configuration: 0, 1 or 2.
    pub(crate) model: usize,
    pub(crate) years: Years,
    pub(crate) feed: Feed,
}

/// The years that a model works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Years {
    /// From the first to the last, both included, at a fixed step.
    Range {
        first: i32,
        last: i32,
        step: i32,
    },
    Target(i32),
}

/// Where a model's two tables come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// From the event's files, which the configuration names.
    Files,
    /// The first output of one model, and the second output of another.
    Models([usize; 2]),
}

impl Coupling {
    pub(crate) const ALL: [Self; 3] = [Self::Loose, Self::Tight, Self::TightTwoway];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loose => "loose_coupling",
            Self::Tight => "tight_coupling",
            Self::TightTwoway => "tight_coupling_twoway",
        }
    }

    /// Returns the runs, in their order.
    pub(crate) fn steps(self) -> Vec<Step> {
        let chain = |years| {
            [Feed::Files, Feed::Models([0, 0]), Feed::Models([1, 1])]
                .into_iter()
                .enumerate()
                .map(move |(model, feed)| Step { model, years, feed })
        };
        // The first model again, with the tables of the second and the third.
        let again = |years| {
            chain(years).map(|step| match step.feed {
                Feed::Files => Step { feed: Feed::Models([1, 2]), ..step },
                Feed::Models(_) => step,
            })
        };
        let each = || (2010..=2025).step_by(5).map(Years::Target);
        match self {
            Self::Loose => chain(Years::Range { first: 2010, last: 2100, step: 5 }).collect(),
            Self::Tight => each().flat_map(chain).collect(),
            Self::TightTwoway => each().flat_map(|years| chain(years).chain(again(years))).collect(),
        }
    }
}

impl fmt::Display for Coupling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Years {
    /// Returns whether a table's row of this year is read.
    pub(crate) fn has(self, year: i32) -> bool {
        match self {
            Self::Range { first, last, step } => (first..=last).contains(&year) && (year - first) % step == 0,
            Self::Target(target) => year == target,
        }
    }

    /// Returns the year whose value changes.
    pub(crate) fn advanced(self) -> i32 {
        match self {
            Self::Range { first, .. } => first,
            Self::Target(target) => target,
        }
    }
}

impl fmt::Display for Years {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, last, .. } => write!(f, "{first}_{last}"),
            Self::Target(target) => write!(f, "{target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_way_coupling_runs_twice_in_each_year() {
        let steps = Coupling::TightTwoway.steps();
        assert_eq!(steps.len(), 24);
        let first: Vec<_> = steps[..6].iter().map(|step| (step.model, step.feed)).collect();
        let (second, third) = ((1, Feed::Models([0, 0])), (2, Feed::Models([1, 1])));
        assert_eq!(first, [(0, Feed::Files), second, third, (0, Feed::Models([1, 2])), second, third]);
        let years: Vec<_> = steps.chunks(6).map(|round| round[5].years).collect();
        assert_eq!(years, [2010, 2015, 2020, 2025].map(Years::Target));
    }

    #[test]
    fn a_range_has_only_its_ends_and_its_steps() {
        let years = Years::Range { first: 2010, last: 2100, step: 5 };
        let had: Vec<_> = (2000..2200).filter(|year| years.has(*year)).collect();
        assert_eq!((had.len(), had[0], had[1], had[18]), (19, 2010, 2015, 2100));
        assert_eq!(years.to_string(), "2010_2100");
    }
}
