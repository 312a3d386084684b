//! From OpenMetrics to the text format 0.0.4: a counter's family has the name of its samples there, an info is a gauge,
//! and units and the end have no line.

use std::fmt::Write as _;

pub(super) fn from_openmetrics(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    // HELP comes before TYPE, and only TYPE says what the family is called.
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                let _ = writeln!(classic, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(classic, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            let _ = writeln!(classic, "{line}");
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    #[test]
    fn families_are_called_as_their_samples() {
        let openmetrics = "# HELP a Of a.\n# TYPE a counter\na_total{x=\"1\"} 5\n# HELP b_seconds Of b.\n\
                           # TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 0.5\n\
                           # HELP c Of c.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let classic = "# HELP a_total Of a.\n# TYPE a_total counter\na_total{x=\"1\"} 5\n# HELP b_seconds Of b.\n\
                       # TYPE b_seconds gauge\nb_seconds 0.5\n# HELP c_info Of c.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(super::from_openmetrics(openmetrics), classic);
    }
}
