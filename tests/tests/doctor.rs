//! `lb doctor` finds what is in the way, and its commands remove it.

use std::fs;

use anyhow::{Context, Result};
use lab::{Family, Json, Lab, Layout, Nginx, Outcome, Service, configuration, lb_binary, run, test};

#[test]
fn what_is_in_the_way_is_found_and_gone_after_its_command() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let config = lab.dir().join("doctor.toml");
        fs::write(&config, configuration(lab, &[Service::web(lab, Family::V4)]))?;
        let examine = || -> Result<(Option<i32>, Vec<Json>)> {
            let mut command = lab.front().command(lb_binary()?);
            let outcome = Outcome::of(command.args(["doctor", "-o", "json", "--config"]).arg(&config))?;
            let document: Json = outcome.stdout.parse::<Json>().with_context(|| format!("{outcome:?}"))?;
            Ok((outcome.code, document["findings"].as_array().context("findings")?.clone()))
        };
        let bad = |findings: &[Json]| -> Vec<Json> {
            let problems = findings.iter().filter(|finding| finding["level"] == "problem");
            problems.map(|finding| finding["fix"].clone()).collect()
        };
        let (code, findings) = examine()?;
        assert_eq!((code, bad(&findings)), (Some(0), vec![]), "{findings:#?}");
        for subject in ["kernel", "pin_dir", "eth0", "eth1", "web", "web/web-01", "web/web-02"] {
            assert!(findings.iter().any(|finding| finding["subject"] == subject), "nothing on {subject}");
        }

        let fix =
            |command: &Json| run(lab.front().command("sh").arg("-c").arg(command.as_str().unwrap_or("false")), "");
        let front = |command: &str| run(lab.front().command("sh").args(["-c", command]), "").map(drop);
        front(&format!("ip link set eth0 down; ip addr del {}/32 dev lo", Lab::VIP.socket(Family::V4).ip()))?;
        let (code, findings) = examine()?;
        assert_eq!((code, bad(&findings)), (Some(1), vec!["ip link set eth0 up".into()]), "{findings:#?}");
        for finding in
            findings.iter().filter(|finding| finding["fix"].as_str().is_some_and(|fix| fix.starts_with("ip ")))
        {
            fix(&finding["fix"])?;
        }
        let (code, findings) = examine()?;
        assert_eq!((code, bad(&findings)), (Some(0), vec![]), "{findings:#?}");
        assert!(
            !findings
                .iter()
                .any(|finding| finding["found"].as_str().is_some_and(|found| found.contains("no interface")))
        );
        Ok(())
    });
}
