//! What a plugin did, as the stories of events and the answers of trials show it.

use serde_json::{Map, Value, json};

use crate::domain::plugin::{LogLine, PluginRun, Verdict};

/// Shows a run.
pub(super) fn show(run: &PluginRun) -> Value {
    let (verdict, reason, outputs) = match &run.verdict {
        Verdict::Deliver => ("deliver", None, None),
        Verdict::Transformed { outputs } => ("transformed", None, Some(*outputs)),
        Verdict::Denied { reason } => ("denied", Some(reason.clone()), None),
        Verdict::Skipped { reason } => ("skipped", Some(reason.clone()), None),
        Verdict::Failed(failure) => ("failed", Some(failure.reason()), None),
    };
    json!({
        "digest": run.digest.to_string(),
        "took_ms": run.took.as_secs_f64() * 1000.0,
        "answered": run.answered,
        "verdict": verdict,
        "reason": reason,
        "outputs": outputs,
        "logs": run.logs.iter().map(show_line).collect::<Vec<_>>(),
        "logs_dropped": run.logs_dropped,
        "stderr": run.stderr,
        "memory_bytes": run.memory_bytes,
    })
}

fn show_line(line: &LogLine) -> Value {
    let fields: Map<_, _> =
        line.fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({"level": line.level, "message": line.message, "fields": fields})
}
