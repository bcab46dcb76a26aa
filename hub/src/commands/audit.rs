//! `audit`: what the audit log of this data folder is worth, and what is in it.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::outside;
use serde_json::{Value, json};

use super::CommandError;
use crate::cli::{AuditCommand, Form};
use crate::events::audit::check::{self, CheckError, Checked};
use crate::events::audit::keys::PublicKey;

pub(super) fn run(
    data_dir: &Path,
    command: AuditCommand,
    out: &mut (dyn Write + Send),
    talk: &mut (dyn Write + Send),
) -> Result<(), CommandError> {
    match command {
        AuditCommand::Key => Ok(write!(out, "{}", check::key(data_dir)?.to_pem())?),
        AuditCommand::Verify { files, key, form } => verify(data_dir, files, key, form, out, talk),
        AuditCommand::Tail { lines, device } => {
            let device = device.as_ref().map(|device| device.as_str());
            tail(data_dir, lines, device, out)
        }
    }
}

fn verify(
    data_dir: &Path,
    files: Vec<PathBuf>,
    key: Option<PathBuf>,
    form: Form,
    out: &mut (dyn Write + Send),
    talk: &mut (dyn Write + Send),
) -> Result<(), CommandError> {
    let checked = if files.is_empty() {
        check::whole(data_dir)?
    } else {
        let key = match &key {
            Some(file) => PublicKey::read(file).map_err(CheckError::from)?,
            None => check::key(data_dir)?,
        };
        check::part(files, &key)?
    };
    if form.json {
        writeln!(out, "{:#}", document(&checked))?;
    }
    match checked {
        Checked::Whole(None) => {
            let _ = writeln!(talk, "the audit log is empty");
            Ok(())
        }
        Checked::Whole(Some(verified)) => {
            let _ = writeln!(
                talk,
                "the audit log is whole: {} records, number {} to {}, the last of {}; {} signed heads, {} records after the last of them",
                verified.lines,
                verified.first,
                verified.last.seq,
                verified.last_time,
                verified.heads,
                verified.unsigned
            );
            if verified.not_vouched > 0 {
                let _ = writeln!(
                    talk,
                    "{} of the records stand where a hub was killed, and nothing vouches for them: look at those before each signed head with notVouched",
                    verified.not_vouched
                );
            }
            Ok(())
        }
        Checked::Broken {
            file,
            line,
            finding,
        } => Err(CommandError::AuditBroken(format!(
            "{}:{line}: {finding}",
            file.display()
        ))),
    }
}

fn document(checked: &Checked) -> Value {
    match checked {
        Checked::Whole(None) => json!({ "whole": true, "records": 0 }),
        Checked::Whole(Some(verified)) => json!({
            "whole": true,
            "records": verified.lines,
            "signedHeads": verified.heads,
            "first": verified.first,
            "last": verified.last.seq,
            "lastHash": verified.last.hex(),
            "lastTime": verified.last_time,
            "afterLastHead": verified.unsigned,
            "notVouched": verified.not_vouched,
        }),
        Checked::Broken {
            file,
            line,
            finding,
        } => json!({
            "whole": false,
            "file": file,
            "line": line,
            "finding": finding.to_string(),
        }),
    }
}

fn tail(
    data_dir: &Path,
    most: usize,
    device: Option<&str>,
    out: &mut (dyn Write + Send),
) -> Result<(), CommandError> {
    let is_wanted = |line: &str| {
        let Some(device) = device else { return true };
        let read: Result<Value, _> = serde_json::from_str(line);
        read.is_ok_and(|record| record.get("deviceId").and_then(Value::as_str) == Some(device))
    };
    let mut found: VecDeque<String> = VecDeque::new();
    // The newest file first, and older ones as long as there is too little.
    for file in check::files(data_dir)?.into_iter().rev() {
        let mut lines = VecDeque::new();
        check::each_line(&file, |line| {
            if is_wanted(line) {
                if found.len() + lines.len() >= most {
                    lines.pop_front();
                }
                lines.push_back(line.to_owned());
            }
        })?;
        lines.extend(found);
        found = lines;
        while found.len() > most {
            found.pop_front();
        }
        if found.len() >= most {
            break;
        }
    }
    for line in found {
        writeln!(out, "{}", outside::printable_json(&line))?;
    }
    Ok(())
}
