//! A new configuration is taken over as a whole or not at all, and no connection notices.

use std::fs;

use anyhow::{Context, Result};
use lab::{Daemon, Family, Json, Lab, Layout, Nginx, Outcome, Service, backend, configuration, test};

#[test]
fn a_good_file_is_taken_over_and_a_bad_one_changes_nothing() {
    test(&Layout { webs: 3, ..Layout::default() }, |lab| {
        let _servers = Nginx::start_all(lab)?;
        let service = Service::web(lab, Family::V4);
        let daemon = Daemon::start(lab, std::slice::from_ref(&service))?;
        let vip = Lab::VIP.socket(Family::V4);
        let mut open = lab.client().connect(vip)?;
        let owner = open.get()?.body;

        let mut larger = service.clone();
        larger.backends.push(("web-03".into(), lab.webs()[2].address(Family::V4, 80), 1));
        larger.algorithm = "maglev";
        let text = configuration(lab, &[larger]);
        fs::write(daemon.config(), &text)?;
        let drift = json(&daemon.lb(&["config", "diff", "-o", "json"])?)?;
        let keys: Vec<_> = drift["differences"].as_array().context("a list")?.iter().map(|one| &one["key"]).collect();
        assert_eq!(
            keys,
            ["service.web.algorithm", "service.web.backend.web-03.address", "service.web.backend.web-03.weight"]
        );
        let done = json(&daemon.lb(&["config", "reload", "-o", "json"])?)?;
        assert_eq!(done["changes"].as_array().map(Vec::len), Some(3), "{done:#}");
        daemon.await_rotation("web-03", true)?;
        assert_eq!(daemon.status()?["services"][0]["algorithm"], "maglev");
        assert_eq!(open.get()?.body, owner);

        let before = daemon.lb(&["config", "show", "--running"])?.stdout;
        fs::write(daemon.config(), text.replace("rise = 2", "rise = 2\nriise = 2").replace("web-03", "web-04"))?;
        let refused = daemon.lb(&["config", "reload"])?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for words in ["lb.toml:17:1", "unknown key `riise`; did you mean `rise`?", "^^^^^"] {
            assert!(refused.stderr.contains(words), "{}", refused.stderr);
        }
        assert_eq!(daemon.lb(&["config", "show", "--running"])?.stdout, before);
        assert_eq!(daemon.status()?["services"][0]["in_rotation"], 3);

        fs::write(daemon.config(), text.replace("flows = 65536", "flows = 32768"))?;
        let done = json(&daemon.lb(&["config", "reload", "-o", "json"])?)?;
        assert_eq!((&done["changes"], &done["next_start"][0]["key"]), (&Json::Array(vec![]), &"global.flows".into()));
        assert_eq!(open.last_get()?.body, owner);
        let events = json(&daemon.lb(&["events", "-o", "json"])?)?;
        let told: Vec<_> = events["events"].as_array().context("a list")?.iter().collect();
        assert!(told.iter().any(|event| event["what"] == "config" && event["to"] == "refused"), "{events:#}");
        Ok(())
    });
}

#[test]
fn services_change_at_run_time_and_stay_so_over_a_restart() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let service = Service::web(lab, Family::V4);
        let mut daemon = Daemon::start(lab, std::slice::from_ref(&service))?;
        let other = Lab::VIP.with_port(8080).socket(Family::V4);
        let [first, second] = [0, 1].map(|web| lab.webs()[web].address(Family::V4, 80));
        let (listen, first, second) = (other.to_string(), format!("a={first}"), format!("b={second}"));
        let add = ["service", "add", "api", "--listen", &listen, "--backend", &first, "--backend", &second];
        let added = daemon.lb(&[&add[..], &["--health", "type=http", "--health", "interval=200ms"]].concat())?;
        assert_eq!(added.code, Some(0), "{added:?}");
        assert_eq!(daemon.lb(&add)?.code, Some(1));
        let set = daemon.lb(&["service", "set", "web", "--algorithm", "maglev", "--health", "rise=3"])?;
        assert_eq!(set.code, Some(0), "{set:?}");
        assert_eq!(daemon.lb(&["backend", "set", "web/web-01", "--weight", "7"])?.code, Some(0));
        lab::eventually("the new service", std::time::Duration::from_secs(5), || {
            Ok((daemon.status()?["services"][0]["in_rotation"] == 2).then_some(()))
        })?;
        let tally = lab.client().curl(format!("http://{other}/"), 20)?;
        // Each CPU takes turns of its own.
        assert!(tally.of("web-01").abs_diff(10) <= 2 && tally.total() == 20, "{tally:?}");

        let before = daemon.lb(&["config", "show", "--running"])?.stdout;
        daemon.stop()?;
        daemon.start_again()?;
        assert_eq!(daemon.lb(&["config", "show", "--running"])?.stdout, before);
        assert_eq!(daemon.status()?["services"][1]["algorithm"], "maglev");
        let drift = daemon.lb(&["config", "diff"])?;
        for key in ["service.api.listen", "service.web.algorithm", "service.web.health.rise", "web-01.weight"] {
            assert!(drift.stdout.contains(key), "{}", drift.stdout);
        }

        // An edit of the file wins, for the key that was edited.
        let edited = configuration(lab, &[service]).replacen("weight = 1", "weight = 5", 1);
        fs::write(daemon.config(), edited)?;
        assert_eq!(daemon.lb(&["config", "reload"])?.code, Some(0));
        let status = daemon.status()?;
        assert_eq!(backend(&status, "web-01")?["weight"], 5);
        assert_eq!(status["services"][1]["algorithm"], "maglev");

        let refused = daemon.lb(&["service", "remove", "api"])?;
        assert_eq!(refused.code, Some(4), "{refused:?}");
        assert_eq!(daemon.lb(&["service", "remove", "api", "--yes"])?.code, Some(0));
        assert_eq!(daemon.lb(&["service", "show", "api"])?.code, Some(3));

        // Whoever regrets all that gets the file back.
        assert_eq!(daemon.lb(&["service", "remove", "web", "--yes"])?.code, Some(0));
        assert_eq!(daemon.lb(&["config", "reload"])?.code, Some(0));
        let drift = json(&daemon.lb(&["config", "diff", "-o", "json"])?)?;
        let keys: Vec<_> = drift["differences"].as_array().context("a list")?.iter().map(|one| &one["key"]).collect();
        assert_eq!(keys, ["service.web"]);
        assert_eq!(daemon.lb(&["config", "reload", "--discard"])?.code, Some(0));
        assert_eq!(daemon.status()?["services"][0]["algorithm"], "round-robin");
        daemon.stop()?;
        daemon.start_again()?;
        let drift = json(&daemon.lb(&["config", "diff", "-o", "json"])?)?;
        assert_eq!(drift["differences"], Json::Array(vec![]), "{drift:#}");
        Ok(())
    });
}

fn json(outcome: &Outcome) -> Result<Json> {
    serde_json::from_str(&outcome.stdout).with_context(|| format!("{outcome:?}"))
}
