//! Plans the runs of an event: for each model file its coupling, and for each model of it the tables and settings.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::config::{Config, Inputs, Project};
use crate::coupling::{Coupling, Feed, Step, Years};
use crate::event::{self, EventFile};
use crate::model;

/// The runs of one model file.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The file's path in the event.
    pub(crate) file: String,
    pub(crate) coupling: Coupling,
    pub(crate) runs: Vec<Run>,
}

/// One run of one model, with everything that it needs.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) project: Project,
    pub(crate) years: Years,
    /// Where the configured inputs are.
    pub(crate) in_dir: Option<PathBuf>,
    pub(crate) inputs: [PathBuf; 2],
    pub(crate) out_dir: PathBuf,
    pub(crate) outputs: [PathBuf; 2],
}

struct Planner<'a> {
    folder: &'a Path,
    configs: &'a [Config],
    tables: Vec<&'a EventFile>,
    coupling: Coupling,
}

impl Plan {
    /// Plans all models of the event, in the event's order.
    pub(crate) fn all(folder: &Path, files: &[EventFile], configs: &[Config]) -> Result<Vec<Self>, Error> {
        let mut plans = Vec::new();
        for file in files.iter().filter(|file| file.mimetype == "text/x-python" && file.is_in("models")) {
            let failed = |source| Error::InvalidModel { file: file.path(), source };
            let coupling = coupling(folder, file).map_err(failed)?;
            let tables = files.iter().filter(|file| file.mimetype == "text/csv").collect();
            let planner = Planner { folder, configs, tables, coupling };
            let runs: Result<_, _> = coupling.steps().into_iter().map(|step| planner.run(step)).collect();
            plans.push(Self { file: file.path(), coupling, runs: runs.map_err(failed)? });
        }
        if plans.is_empty() { Err(Error::NoModel) } else { Ok(plans) }
    }
}

fn coupling(folder: &Path, file: &EventFile) -> Result<Coupling, model::Error> {
    downloaded(folder, &file.path())?;
    let name = file.name.rsplit_once('.').map_or(&*file.name, |(name, _)| name);
    let known = Coupling::ALL.into_iter().find(|coupling| coupling.name() == name);
    known.ok_or_else(|| model::Error::UnknownCoupling {
        name: name.to_owned(),
        known: Coupling::ALL.map(Coupling::name).join(", "),
    })
}

/// Finds a file of the event.
fn downloaded(folder: &Path, path: &str) -> Result<PathBuf, model::Error> {
    let inside = event::inside(path).ok_or_else(|| model::Error::Leaves(path.to_owned()))?;
    let found = folder.join("download").join(inside);
    if found.is_file() { Ok(found) } else { Err(model::Error::NoFile(found)) }
}

impl Planner<'_> {
    fn run(&self, step: Step) -> Result<Run, model::Error> {
        let config = &self.configs[step.model];
        let out_dir = self.out_dir(step.model)?;
        let node = |section| model::Error::Node { section, config: config.id.clone() };
        let project = config.project.ok_or_else(|| node("PROJECT"))?;
        let in_dir = config.inputs.as_ref().map(|inputs| self.folder.join("download").join(&inputs.dir));
        let inputs = match step.feed {
            Feed::Files => self.files(config.inputs.as_ref().ok_or_else(|| node("INPUTS"))?)?,
            Feed::Models([one, two]) => [self.output(one, 1, step.years)?, self.output(two, 2, step.years)?],
        };
        let outputs = [self.output(step.model, 1, step.years)?, self.output(step.model, 2, step.years)?];
        let name = self.name(step.model);
        Ok(Run { name, project, years: step.years, in_dir, inputs, out_dir, outputs })
    }

    fn name(&self, model: usize) -> String {
        format!("{}_model_{}", self.coupling, model + 1)
    }

    fn out_dir(&self, model: usize) -> Result<PathBuf, model::Error> {
        let config = &self.configs[model];
        let node = || model::Error::Node { section: "OUTPUTS", config: config.id.clone() };
        let out_dir = config.outputs.as_ref().ok_or_else(node)?;
        Ok(self.folder.join("output").join(out_dir).join(format!("{}_outputs", self.name(model))))
    }

    /// Returns where a model writes its first or second table.
    fn output(&self, model: usize, which: u8, years: Years) -> Result<PathBuf, model::Error> {
        Ok(self.out_dir(model)?.join(format!("output{which}_{}_{years}.csv", self.name(model))))
    }

    /// Finds the event's two input files.
    fn files(&self, inputs: &Inputs) -> Result<[PathBuf; 2], model::Error> {
        let find = |name: &String| {
            let found = self.tables.iter().find(|file| file.is_in(&inputs.dir) && file.name == *name);
            let absent = || model::Error::NoInput { dir: inputs.dir.clone(), name: name.clone() };
            downloaded(self.folder, &found.ok_or_else(absent)?.path())
        };
        let [one, two] = &inputs.files;
        Ok([find(one)?, find(two)?])
    }
}
