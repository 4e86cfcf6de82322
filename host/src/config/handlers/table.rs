//! The TOML form of a `[[handler]]` table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use waypost_domain::FilterDialect;
use waypost_domain::plugin::AllowHost;
use waypost_domain::retry::{format_duration, parse_duration};
use waypost_handlers::{Destination, IngestAuth, OutputFolder, Source};

/// How long a cart may take to be staged, and a bundle to be ingested, unless the table says otherwise.
const CART_TIMEOUT: Duration = Duration::from_secs(180);
const INGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The longest of either timeout, and of that of a run: 30 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The type of a follow-up event, unless the table says otherwise.
const EVENT_TYPE: &str = "waypost.handler.output";

/// One table, or the values that one script of a folder overrides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) name: Option<String>,
    pub(super) filter: Option<String>,
    pub(super) filter_file: Option<PathBuf>,
    pub(super) filter_dialect: Option<FilterDialect>,
    pub(super) dispatch: Option<bool>,
    pub(super) component: Option<PathBuf>,
    pub(super) allow_hosts: Option<Vec<AllowHost>>,
    pub(super) command: Option<Vec<String>>,
    pub(super) env: Option<BTreeMap<String, String>>,
    pub(super) scripts_dir: Option<PathBuf>,
    pub(super) scripts: Option<BTreeMap<String, Table>>,
    pub(super) args: Option<Vec<String>>,
    pub(super) fetch: Option<Fetch>,
    pub(super) upload: Option<Upload>,
    pub(super) outputs: Option<Vec<Output>>,
    pub(super) timeout: Option<String>,
    pub(super) max_parallel: Option<usize>,
    pub(super) retry_schedule: Option<String>,
    pub(super) upload_retry_schedule: Option<String>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) download_bytes_max: Option<u64>,
    pub(super) download_files_max: Option<usize>,
    pub(super) output_bytes_max: Option<u64>,
    pub(super) output_files_max: Option<usize>,
    pub(super) log_bytes_max: Option<u64>,
}

impl Table {
    /// Returns this table with the values of `over` in place of its own, where `over` has some.
    pub(super) fn overlaid(self, over: Self) -> Self {
        // They exclude each other, so either replaces both. A table with both keeps both, and is refused.
        let (filter, filter_file) = match (over.filter, over.filter_file) {
            (None, None) => (self.filter, self.filter_file),
            given => given,
        };
        Self {
            name: over.name.or(self.name),
            filter,
            filter_file,
            filter_dialect: over.filter_dialect.or(self.filter_dialect),
            dispatch: over.dispatch.or(self.dispatch),
            component: over.component.or(self.component),
            allow_hosts: over.allow_hosts.or(self.allow_hosts),
            command: over.command.or(self.command),
            env: over.env.or(self.env),
            scripts_dir: over.scripts_dir.or(self.scripts_dir),
            scripts: over.scripts.or(self.scripts),
            args: over.args.or(self.args),
            fetch: over.fetch.or(self.fetch),
            upload: over.upload.or(self.upload),
            outputs: over.outputs.or(self.outputs),
            timeout: over.timeout.or(self.timeout),
            max_parallel: over.max_parallel.or(self.max_parallel),
            retry_schedule: over.retry_schedule.or(self.retry_schedule),
            upload_retry_schedule: over.upload_retry_schedule.or(self.upload_retry_schedule),
            memory_bytes: over.memory_bytes.or(self.memory_bytes),
            download_bytes_max: over.download_bytes_max.or(self.download_bytes_max),
            download_files_max: over.download_files_max.or(self.download_files_max),
            output_bytes_max: over.output_bytes_max.or(self.output_bytes_max),
            output_files_max: over.output_files_max.or(self.output_files_max),
            log_bytes_max: over.log_bytes_max.or(self.log_bytes_max),
        }
    }
}

/// `fetch = { local = "…" }` or `fetch = { cart = "…", timeout = "180s" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fetch {
    local: Option<PathBuf>,
    cart: Option<String>,
    timeout: Option<String>,
}

impl Fetch {
    pub(super) fn source(&self) -> Result<Source, String> {
        match (&self.local, &self.cart) {
            (Some(folder), None) if self.timeout.is_none() => Ok(Source::Local(folder.clone())),
            (Some(_), None) => Err("`fetch`: `timeout` goes with `cart`".to_owned()),
            (None, Some(url)) => {
                let timeout = duration("fetch.timeout", self.timeout.as_deref(), CART_TIMEOUT)?;
                Ok(Source::Cart { url: web("fetch.cart", url)?, timeout })
            }
            (Some(_), Some(_)) | (None, None) => Err("`fetch`: expected either `local` or `cart`".to_owned()),
        }
    }
}

/// `upload = { local = "…" }`, `upload = { ingest = "…", status = "…", … }` or `upload = { events = "…", type = "…" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upload {
    local: Option<PathBuf>,
    ingest: Option<String>,
    status: Option<String>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    timeout: Option<String>,
    events: Option<PathBuf>,
    r#type: Option<String>,
}

impl Upload {
    pub(super) fn destination(&self) -> Result<Destination, String> {
        let of_ingest = [
            ("status", self.status.is_some()),
            ("username", self.username.is_some()),
            ("password_file", self.password_file.is_some()),
            ("certificate", self.certificate.is_some()),
            ("timeout", self.timeout.is_some()),
        ];
        let of_events = [("type", self.r#type.is_some())];
        match (&self.local, &self.ingest, &self.events) {
            (Some(folder), None, None) => {
                stray("ingest", &of_ingest)?;
                stray("events", &of_events)?;
                Ok(Destination::Local(folder.clone()))
            }
            (None, Some(url), None) => {
                stray("events", &of_events)?;
                self.ingest(url)
            }
            (None, None, Some(folder)) => {
                stray("ingest", &of_ingest)?;
                let ty = self.r#type.clone().unwrap_or_else(|| EVENT_TYPE.to_owned());
                if ty.is_empty() {
                    return Err("`upload.type`: expected an event type, found nothing".to_owned());
                }
                Ok(Destination::Events { folder: folder.clone(), ty })
            }
            _ => Err("`upload`: expected one of `local`, `ingest` and `events`".to_owned()),
        }
    }

    fn ingest(&self, url: &str) -> Result<Destination, String> {
        let status = self.status.as_ref().ok_or(
            "`upload`: `ingest` needs `status` too, the URL that is asked for the state (`…/get_state`)",
        )?;
        let auth = match (&self.username, &self.password_file, &self.certificate) {
            (None, None, None) => IngestAuth::None,
            (Some(username), Some(password_file), None) => {
                IngestAuth::Basic { username: username.clone(), password_file: password_file.clone() }
            }
            (None, None, Some(pem_file)) => IngestAuth::Certificate { pem_file: pem_file.clone() },
            _ => {
                return Err(
                    "`upload`: expected `username` and `password_file`, or `certificate` alone".to_owned()
                );
            }
        };
        Ok(Destination::Ingest {
            url: web("upload.ingest", url)?,
            status_url: web("upload.status", status)?,
            auth,
            timeout: duration("upload.timeout", self.timeout.as_deref(), INGEST_TIMEOUT)?,
        })
    }
}

fn stray(kind: &str, keys: &[(&str, bool)]) -> Result<(), String> {
    match keys.iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(format!("`upload`: `{key}` goes with `{kind}`")),
        None => Ok(()),
    }
}

/// `"output"` or `{ folder = "output", key_values = "kvp.csv" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a folder's name, or `{ folder = \"…\", key_values = \"…\" }`")]
pub(super) enum Output {
    Folder(String),
    #[serde(rename_all = "snake_case")]
    With {
        folder: String,
        key_values: String,
    },
}

impl Output {
    pub(super) fn folder(&self) -> OutputFolder {
        match self {
            Self::Folder(folder) => OutputFolder::new(folder),
            Self::With { folder, key_values } => {
                OutputFolder { folder: folder.clone(), key_values: key_values.clone() }
            }
        }
    }
}

/// Reads a duration above zero.
pub(super) fn duration(key: &str, text: Option<&str>, default: Duration) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(default) };
    match parse_duration(text).filter(|time| !time.is_zero() && *time <= TIMEOUT_MAX) {
        Some(time) => Ok(time),
        None => {
            let most = format_duration(TIMEOUT_MAX);
            Err(format!(
                "`{key}`: expected a number and a unit (`90s`, `2h`), at most `{most}`, found `{text}`"
            ))
        }
    }
}

fn web(key: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| format!("`{key}`: expected an http or https URL, found `{text}`"))
}
