//! `--config FILE`: what the file says becomes flags, as far as the command line does not say something else.
//!
//! So each setting has one name, one meaning and one check, those of its flag.

mod kube_proxy;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use serde_json::{Map, Value};

use super::source::API_FLAGS;

const OWN: (&str, &str) = ("sluice.dev/v1alpha1", "SluiceConfiguration");
const KUBE_PROXY: (&str, &str) = ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration");
/// Flags that are no settings.
const NO_SETTINGS: [&str; 3] = ["config", "help", "version"];

/// What a file says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ConfigFile {
    /// By the flag's name in lower case without dashes: the field, and its value.
    settings: BTreeMap<String, (String, Value)>,
    /// It was written for kube-proxy.
    foreign: bool,
    /// What has no effect, for people.
    pub(super) notices: Vec<String>,
}

impl ConfigFile {
    /// Reads a file of either kind.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).context("cannot be read")?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let options = serde_saphyr::options! { with_snippet: false };
        let value: Value = serde_saphyr::from_str_with_options(text, options)?;
        let Value::Object(mut fields) = value else {
            bail!("it must be a mapping with apiVersion and kind");
        };
        let mut word = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (version, kind) = (word("apiVersion"), word("kind"));
        match (version.as_str(), kind.as_str()) {
            OWN => Ok(Self::own(fields)),
            KUBE_PROXY => Ok(kube_proxy::read(fields)),
            _ => bail!(
                "apiVersion \"{version}\", kind \"{kind}\" is no configuration of this program; use {} {}, or {} {}",
                OWN.0,
                OWN.1,
                KUBE_PROXY.0,
                KUBE_PROXY.1
            ),
        }
    }

    fn own(fields: Map<String, Value>) -> Self {
        let mut file = Self::default();
        for (field, value) in fields {
            if !value.is_null() {
                file.set(&field.clone(), &field, value);
            }
        }
        file
    }

    fn set(&mut self, flag: &str, field: &str, value: Value) {
        self.settings.insert(plain(flag), (field.to_owned(), value));
    }

    /// The settings as arguments of `command`, without those that `given` has from the command line or the environment.
    pub(super) fn arguments(
        &mut self,
        command: &Command,
        given: &ArgMatches,
    ) -> anyhow::Result<Vec<OsString>> {
        let from_folder = is_given(given, "manifests");
        let mut found = Vec::new();
        for (flag, (field, value)) in std::mem::take(&mut self.settings) {
            let Some(argument) = command
                .get_arguments()
                .find(|argument| is_called(argument, &flag))
            else {
                bail!(
                    "field {field} is unknown; fields are the flags of `lb-agent run`, such as clusterCIDR for --cluster-cidr"
                );
            };
            let id = argument.get_id().as_str();
            let pointless = from_folder && API_FLAGS.contains(&id);
            if !is_given(given, id) && !pointless {
                found.extend(arguments(argument, &field, value)?);
            }
        }
        Ok(found)
    }

    /// Leaves out what only newer or older agents have a flag for, and says so.
    fn keep_known(&mut self, command: &Command) {
        let known = |flag: &str| command.get_arguments().any(|argument| is_called(argument, flag));
        let notices = &mut self.notices;
        self.settings.retain(|flag, (field, _)| {
            let known = known(flag);
            if !known {
                notices.push(format!("{field} has no effect: this agent has no such setting"));
            }
            known
        });
    }
}

/// The name of a flag or field without what differs between the two ways of writing it.
fn plain(name: &str) -> String {
    name.replace('-', "").to_lowercase()
}

fn is_called(argument: &Arg, flag: &str) -> bool {
    let aliases = argument.get_all_aliases().unwrap_or_default();
    let mut names = argument.get_long().into_iter().chain(aliases);
    names.any(|name| plain(name) == flag) && !NO_SETTINGS.contains(&argument.get_id().as_str())
}

fn is_given(given: &ArgMatches, id: &str) -> bool {
    let source = given.value_source(id);
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// One setting as arguments.
fn arguments(argument: &Arg, field: &str, value: Value) -> anyhow::Result<Vec<OsString>> {
    let flag = argument.get_long().unwrap_or_default();
    if !argument.get_action().takes_values() {
        return match value {
            Value::Bool(true) => Ok(vec![format!("--{flag}").into()]),
            Value::Bool(false) => Ok(Vec::new()),
            other => Err(anyhow!("field {field} must be true or false, not {other}")),
        };
    }
    let values = match value {
        Value::Array(values) => values,
        one => vec![one],
    };
    let words = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        // YAML takes these words for booleans.
        Value::Bool(true) => Ok("on".to_owned()),
        Value::Bool(false) => Ok("off".to_owned()),
        other => Err(anyhow!(
            "field {field} must be text, a number, or a list of them, not {other}"
        )),
    });
    words
        .map(|word| Ok(format!("--{flag}={}", word?).into()))
        .collect()
}

/// What the file adds to the arguments of the command line, and what of it has no effect.
pub(super) fn more_arguments(
    path: &Path,
    command: &Command,
    given: &ArgMatches,
) -> anyhow::Result<(Vec<OsString>, Vec<String>)> {
    let of_file = || format!("--config {}", path.display());
    let mut file = ConfigFile::read(path).with_context(of_file)?;
    if file.foreign {
        file.keep_known(command);
    }
    let arguments = file.arguments(command, given).with_context(of_file)?;
    let notices = file
        .notices
        .into_iter()
        .map(|notice| format!("{}: {notice}", path.display()));
    Ok((arguments, notices.collect()))
}

#[cfg(test)]
mod tests;
