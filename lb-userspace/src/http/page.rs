//! The page: where every service and every backend stands, what is out of rotation first.

use std::fmt::{self, Display, Write as _};

use jiff::Timestamp;

use crate::{
    api::types::{AgentState, AlarmStatus, BackendStatus, ServiceStatus, SilenceStatus},
    cli::ago,
    metrics::Overview,
    model::{Admin, Passive, Verdict},
};

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}\
h1{font-size:1.3rem}h2{font-size:1.1rem;margin:2rem 0 .3rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid #8884;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}.ok{color:#1a7f37}.warn{color:#9a6700}.bad{color:#cf222e;font-weight:600}\
p.alarm{border-left:.3rem solid #cf222e;padding-left:.6rem;margin:.4rem 0}footer{margin-top:2rem;opacity:.7}";

/// Text that is text in HTML, whatever it holds.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string().chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The page.
pub(super) fn html(overview: &Overview) -> String {
    let mut body = String::new();
    let _ = write!(body, "{}", Page(overview));
    body
}

struct Page<'a>(&'a Overview);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overview { services, alarms, silences, checks, at, .. } = self.0;
        let well = services.iter().filter(|service| service.verdict == Verdict::Ok).count();
        let title = format!("lb: {well} of {} services ok, {} alarms", services.len(), alarms.len());
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        )?;
        alarms.iter().try_for_each(|alarm| alarm_line(f, alarm, *at))?;
        silences.iter().try_for_each(|silence| silence_line(f, silence))?;
        if checks.overdue > 0 {
            let (late, all) = (checks.overdue, checks.running);
            writeln!(f, "<p class=\"bad\">{late} of {all} checks are overdue: health may be out of date</p>")?;
        }
        services.iter().try_for_each(|service| section(f, service, *at))?;
        let version = env!("CARGO_PKG_VERSION");
        writeln!(f, "<footer>lb {version}, {at:.0} · <a href=\"metrics\">metrics</a></footer></body></html>")
    }
}

fn alarm_line(f: &mut fmt::Formatter<'_>, alarm: &AlarmStatus, now: Timestamp) -> fmt::Result {
    let silenced = alarm.silenced_until.map(|until| format!(", silenced until {until}")).unwrap_or_default();
    let (kind, since) = (alarm.alarm.word(), ago(alarm.since, now));
    writeln!(f, "<p class=\"alarm\"><b class=\"bad\">{kind}</b> for {since}{silenced}: {}</p>", Text(&alarm.summary))
}

fn silence_line(f: &mut fmt::Formatter<'_>, silence: &SilenceStatus) -> fmt::Result {
    let reason = silence.reason.as_deref().unwrap_or("no reason given");
    let SilenceStatus { scope, until, actor, .. } = silence;
    writeln!(f, "<p class=\"warn\">{} silenced until {until} by {}: {}</p>", Text(scope), Text(actor), Text(reason))
}

fn section(f: &mut fmt::Formatter<'_>, service: &ServiceStatus, now: Timestamp) -> fmt::Result {
    let tone = match service.verdict {
        Verdict::Ok => "ok",
        Verdict::Degraded => "warn",
        Verdict::Down => "bad",
    };
    writeln!(
        f,
        "<h2>{} <span class=\"{tone}\">{}</span></h2><p>{}, {} of {} in rotation</p>",
        Text(&service.name),
        service.verdict.word(),
        service.listen,
        service.in_rotation,
        service.total
    )?;
    writeln!(
        f,
        "<table><tr><th>backend<th>address<th>rotation<th>admin<th>health<th>weight<th>connections<th>since<th>cause</tr>"
    )?;
    let mut backends: Vec<&BackendStatus> = service.backends.iter().collect();
    // What needs somebody comes first; the rest stays in its order.
    backends.sort_by_key(|backend| backend.in_rotation);
    backends.into_iter().try_for_each(|backend| row(f, backend, now))?;
    writeln!(f, "</table>")
}

fn row(f: &mut fmt::Formatter<'_>, backend: &BackendStatus, now: Timestamp) -> fmt::Result {
    let rotation = if backend.in_rotation { "<span class=\"ok\">in</span>" } else { "<span class=\"bad\">out</span>" };
    let admin = if backend.admin == Admin::Enabled { "" } else { " class=\"warn\"" };
    let health = match backend.passive {
        Passive::Ejected => Passive::Ejected.word(),
        Passive::Ok if backend.complaint.is_some() => "in trouble",
        Passive::Ok => backend.health.word(),
    };
    write!(
        f,
        "<tr><td>{}<td>{}<td>{rotation}<td{admin}>{}<td>{health}<td class=\"n\">{}<td class=\"n\">{}<td>{}<td>{}",
        Text(&backend.name),
        backend.address,
        backend.admin.word(),
        backend.weight,
        backend.connections,
        ago(backend.since, now),
        Text(&backend.cause),
    )?;
    if let Some(complaint) = &backend.complaint {
        write!(f, "<br><span class=\"warn\">{}</span>", Text(complaint))?;
    }
    let agent = backend.agent.as_ref().map(|agent| match agent.state {
        AgentState::Known => format!("<br>agent: {}", Text(agent.words.as_deref().unwrap_or_default())),
        AgentState::Unknown => "<br><span class=\"warn\">agent unknown</span>".into(),
    });
    writeln!(f, "{}</tr>", agent.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_shown() {
        let page = html(&crate::metrics::tests::scrape().overview);
        assert!(page.contains("<br>agent: ready 0% # &lt;full&gt;</tr>"), "{page}");
        assert!(page.contains("<br><span class=\"warn\">agent unknown</span></tr>"), "{page}");
    }

    #[test]
    fn text_stays_text() {
        let page = html(&crate::metrics::tests::scrape().overview);
        assert!(page.contains("a &lt;b&gt; &amp; &quot;c&quot;") && !page.contains("<b> &"), "{page}");
        assert_eq!(Text("<a href=\"x\">'&'</a>").to_string(), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
    }
}
