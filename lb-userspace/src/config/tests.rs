use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A file with one service and two backends, where `replaced` stands for `with`.
fn file(replaced: &str, with: &str) -> String {
    let whole = r#"
[global]
interfaces = ["eth0"]

[service.web]
listen = "203.0.113.10:80"

[service.web.health]
type = "http"
path = "/health"
expect = "200,204"
interval = "500ms"
timeout = "250ms"
rise = 3
fall = 4
port = 8080

[[service.web.backend]]
name = "web-01"
address = "10.0.0.11:80"
weight = 3

[[service.web.backend]]
address = "10.0.0.12:80"
"#;
    assert!(whole.contains(replaced), "{replaced} is in the file");
    whole.replacen(replaced, with, 1)
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("lb.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn every_key_is_read() {
    let service = parse(&file("", "")).unwrap().services.remove(0);
    assert_eq!((service.name.as_str(), service.listen), ("web", "203.0.113.10:80".parse().unwrap()));
    assert_eq!(
        service.health,
        HealthCheck {
            probe: Probe::Http(HttpCheck {
                path: "/health".into(),
                expect: "200,204".parse().unwrap(),
                ..HttpCheck::default()
            }),
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(250),
            rise: 3,
            fall: 4,
            port: Some(8080),
            fast_interval: None,
            jitter: 10,
        }
    );
    let backend = |name: &str, address: &str, weight| Backend::new(name, address.parse().unwrap(), weight);
    assert_eq!(service.backends, [backend("web-01", "10.0.0.11:80", 3), backend("10.0.0.12:80", "10.0.0.12:80", 1)]);
}

#[test]
fn the_shortest_file_has_the_documented_defaults() {
    let config = parse(
        r#"global.interfaces = ["eth0"]
        [service.web]
        listen = "[2001:db8::10]:80"
        backend = [{ address = "[2001:db8::11]:80" }]"#,
    )
    .unwrap();
    assert_eq!(
        config.global,
        Global {
            interfaces: vec!["eth0".into()],
            xdp_mode: XdpMode::Auto,
            socket: "/run/lb/lb.sock".into(),
            state_dir: "/var/lib/lb".into(),
            pin_dir: "/sys/fs/bpf/lb".into(),
            flows: 1_048_576,
            detached_for: Duration::from_secs(3600),
            http: Some("127.0.0.1:9633".parse().unwrap()),
        }
    );
    let service = &config.services[0];
    assert_eq!(
        (service.detached_for, service.after_detachment, service.recall),
        (None, AfterDetachment::Return, Recall::Pressure)
    );
    assert_eq!(
        (service.protocol, service.algorithm, service.forward, service.min_healthy),
        (Protocol::Tcp, Algorithm::RoundRobin, Forward::Nat, 1)
    );
    assert_eq!(
        service.health,
        HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
            fast_interval: None,
            jitter: 10,
        }
    );
    assert_eq!(service.agent, None);
    let asked = parse(&(file("", "") + "[service.web.agent]")).unwrap().services.remove(0).agent;
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    assert_eq!(asked, Some(AgentCheck { port: 9634, interval, timeout, send: String::new() }));
}

#[test]
fn every_mistake_is_pointed_at() {
    let check = |replaced: &str, with: &str, place: &str, says: &str| {
        let error = parse(&file(replaced, with)).expect_err(with);
        assert!(error.starts_with(&format!("lb.toml:{place}: ")) && error.contains(says), "{with}: {error}");
    };
    // What TOML and serde find.
    check("[global]", "[golbal]", "2:2", "unknown key `golbal`; did you mean `global`?");
    check("interfaces", "nterfaces", "3:1", "did you mean `interfaces`?");
    check("listen", "lissen", "6:1", "did you mean `listen`?");
    check("rise", "zzz", "14:1", "unknown key `zzz`, expected one of");
    check("listen = \"203.0.113.10:80\"", "", "5:1", "the key `listen` is missing");
    check("[\"eth0\"]", "\"eth0\"", "3:14", "expected a list");
    check("\"http\"", "\"htpt\"", "9:8", "unknown value `htpt`; did you mean `http`?");
    check("[\"eth0\"]", "[\"eth0\"", "5:1", "`,`");
    check("weight = 3", "weight = \"3\"", "21:10", "expected a whole number");
    check(
        "[service.web.health]",
        "health = \"http\"\n[service.web.more]",
        "8:10",
        "expected a table, [service.NAME.health]",
    );
    // Values out of their range.
    check("[\"eth0\"]", "[]", "3:14", "no interface is named");
    check("\"eth0\"", "\"eth0\", \"eth0\"", "3:23", "eth0 is named twice");
    check("\"eth0\"", "\"a/b\"", "3:15", "not the name of an interface");
    check("[\"eth0\"]", "[\"eth0\"]\nflows = 63", "4:9", "between 64 and 16777216, not 63");
    check("[\"eth0\"]", "[\"eth0\"]\nflows = 16777217", "4:9", "between 64 and 16777216");
    check("[\"eth0\"]", "[\"eth0\"]\nsocket = \"lb.sock\"", "4:10", "starts with /");
    check("[\"eth0\"]", "[\"eth0\"]\ndetached_for = \"31days\"", "4:16", "between 1s and 30days");
    check("\"500ms\"", "\"0s\"", "12:12", "0s is not between 10ms and 1day");
    check("\"250ms\"", "\"2m\"", "13:11", "2m is not between 10ms and 1m");
    check("\"250ms\"", "\"a while\"", "13:11", "\"a while\" is not a duration");
    check("rise = 3", "rise = 0", "14:8", "rise is between 1 and 1000, not 0");
    check("fall = 4", "fall = 0", "15:8", "fall is between 1 and 1000, not 0");
    check("port = 8080", "port = 0", "16:8", "port is between 1 and 65535, not 0");
    check("\"200,204\"", "\"200,20x\"", "11:10", "\"20x\" is not an HTTP status");
    check("\"/health\"", "\"health\"", "10:8", "a path starts with /");
    check("weight = 3", "weight = 257", "21:10", "weight is between 0 and 256, not 257");
    check("weight = 3", "weight = -1", "21:10", "weight is between 0 and 256, not -1");
    check("203.0.113.10:80", "0.0.0.0:80", "6:10", "the unspecified address; write the address that clients");
    check("203.0.113.10:80", "203.0.113.10:0", "6:10", "port 0");
    check("10.0.0.11:80", "127.0.0.1:80", "20:11", "a loopback address; a backend is another machine");
    check("web-01", &"w".repeat(64), "19:8", "at most 63 characters, this one has 64");
    check("[\"eth0\"]", "[\"eth0\"]\nhttp = \"9633\"", "4:8", "\"9633\" is not IP:PORT");
    check("[\"eth0\"]", "[\"eth0\"]\nhttp = \"127.0.0.1:0\"", "4:8", "or \"off\" to serve nothing");
    // Alarms.
    let alarm = |alarm: &str, place: &str, says: &str| {
        check("[service.web]", &format!("[[alarm]]\n{alarm}\n[service.web]"), place, says);
    };
    alarm("", "5:1", "write one of them");
    alarm("webhook = \"hooks.example\"", "6:11", "is not a URL; write e.g. https://");
    alarm("webhook = \"ftp://hooks.example\"", "6:11", "is not a URL");
    alarm("webhook = \"http://me:pass@hooks.example\"", "6:11", "not sent");
    alarm("exec = \"page\"", "6:8", "starts with /");
    alarm("exec = \"/bin/page\"\non = [\"redundancy-lots\"]", "7:7", "did you mean `redundancy-lost`?");
    alarm("exec = \"/bin/page\"\non = []", "7:6", "leave `on` out");
    alarm("exec = \"/bin/page\"\nrepeat = \"0s\"", "7:10", "0s is not between 1s");
    alarm("exec = \"/bin/page\"\nsecret = \"s\"", "7:10", "only a webhook has this key");
    alarm("webhook = \"http://a\"\nsecret = \"\"", "7:10", "1 to 1024 bytes");
    alarm("webhook = \"http://a\"\nsecret = \"s\"\nsecret_file = \"/s\"", "8:15", "one of the two");
    alarm("exec = \"/bin/page\"\n[[alarm]]\nexec = \"/usr/bin/page\"", "7:1", "two alarms are named page");
    alarm("exec = \"/bin/page\"\n[alarm_rules]\ntable_pressure = 101", "8:18", "between 1 and 100, not 101");
    // Rules between keys.
    check("\"http\"", "\"tcp\"", "10:8", "only a check with type = \"http\"");
    check("port = 8080", "server_name = \"a.example\"", "16:15", "only a check with type = \"https\"");
    check("port = 8080", "send = \"hi\"", "16:8", "only a check with type = \"agent\" or \"udp\"");
    check("port = 8080", "jitter = 51", "16:10", "jitter is between 0 and 50, not 51");
    check("port = 8080", "fast_interval = \"1ms\"", "16:17", "1ms is not between 10ms");
    check("port = 8080", "host = \"a b\"", "16:8", "\"a b\" is not the name of a host");
    check("port = 8080", "body = \"\"", "16:8", "1 to 1024 bytes");
    check("weight = 3", "health_port = 0", "21:15", "health_port is between 1 and 65535");
    check("weight = 3", "agent_port = 0", "21:14", "agent_port is between 1 and 65535");
    let agent = |keys: &str, place: &str, says: &str| {
        check("[[service.web.backend]]", &format!("[service.web.agent]\n{keys}\n[[service.web.backend]]"), place, says);
    };
    agent("prot = 1", "19:1", "did you mean `port`?");
    agent("port = 0", "19:8", "port is between 1 and 65535");
    agent("interval = \"1ms\"", "19:12", "1ms is not between 10ms");
    agent("timeout = 1", "19:11", "expected a string");
    let twice =
        file("type = \"http\"\npath = \"/health\"\nexpect = \"200,204\"", "type = \"agent\"") + "[service.web.agent]";
    let error = parse(&twice).unwrap_err();
    assert!(error.starts_with("lb.toml:23:1: type = \"agent\" of health is the agent already"), "{error}");
    check("weight = 3", "backup = 1", "21:10", "expected a boolean");
    check("[service.web.health]", "fail = \"ajar\"\n[service.web.health]", "8:8", "unknown value `ajar`");
    check("[service.web.health]", "slow_start = \"0s\"\n[service.web.health]", "8:14", "0s is not between 1s and 1day");
    check("10.0.0.11:80", "[2001:db8::11]:80", "20:11", "keeps the family; [2001:db8::11]:80 is IPv6");
    check("10.0.0.11:80", "203.0.113.10:80", "20:11", "where the service itself listens");
    check("10.0.0.11:80", "10.0.0.12:80", "24:11", "backends web-01 and 10.0.0.12:80 of service web are both");
    check("web-01", "10.0.0.12:80", "24:11", "backend 10.0.0.12:80 appears twice in service web");
    check("\"203.0.113.10:80\"", "\"203.0.113.10:80\"\nmin_healthy = 3", "7:15", "between 0 and 2, not 3");
    let second =
        "[service.mail]\nlisten = \"203.0.113.10:80\"\nbackend = [{ address = \"10.0.0.13:25\" }]\n[service.web]";
    check("[service.web]", second, "9:10", "services mail and web both listen on 203.0.113.10:80");
    let around =
        "[service.mail]\nlisten = \"203.0.113.10:25\"\nbackend = [{ address = \"203.0.113.10:80\" }]\n[service.web]";
    check("[service.web]", around, "7:24", "203.0.113.10:80 is where service web listens");
    let idle = file("weight = 3", "weight = 0") + "weight = 0";
    assert!(parse(&idle).unwrap_err().contains("every backend of service web has weight 0"));
    let spare = file("weight = 3", "backup = true") + "backup = true";
    assert!(parse(&spare).unwrap_err().contains("every backend of service web is a backup"));
    let spaced = file("", "").replace("service.web", "service.\"a b\"");
    assert!(parse(&spaced).unwrap_err().contains("lb.toml:5:10: a name consists of letters"));
    let empty = "global.interfaces = [\"eth0\"]\n[service.web]\nlisten = \"203.0.113.10:80\"";
    assert!(parse(empty).unwrap_err().starts_with("lb.toml:2:10: service web has no backend"));
}

#[test]
fn one_address_may_serve_two_ports() {
    let second =
        "[service.mail]\nlisten = \"203.0.113.10:25\"\nbackend = [{ address = \"10.0.0.13:25\" }]\n[service.web]";
    assert_eq!(parse(&file("[service.web]", second)).unwrap().services.len(), 2);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = file("rise = 3", "rise = 0").replace("fall = 4", "fall = 0");
    let error = parse(&text).unwrap_err();
    assert!(error.contains("lb.toml:14:8: rise") && error.contains("lb.toml:15:8: fall"), "{error}");
}

#[test]
fn a_mistake_is_shown_with_its_line_and_a_caret() {
    let error = parse(&file("weight = 3", "\tweight = 999 # more")).unwrap_err();
    let expected =
        "lb.toml:21:11: weight is between 0 and 256, not 999\n    |\n 21 | \tweight = 999 # more\n    | \t         ^^^";
    assert_eq!(error, expected);
}

#[test]
fn a_missing_interface_is_named_with_those_that_exist() {
    let config = parse(&file("\"eth0\"", "\"eth0\", \"eth1\"")).unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(config.check_interfaces(&names(&["eth0", "eth1", "lo"])).is_ok());
    let error = config.check_interfaces(&names(&["eth0", "lo"])).unwrap_err().to_string();
    assert!(
        error.starts_with("lb.toml:3:23: there is no interface eth1 here; `ip link` shows those there are: eth0, lo\n"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/lb.toml")).unwrap_err().to_string();
    assert!(error.contains("cannot read the configuration /nonexistent/lb.toml"), "{error}");
}

proptest! {
    /// Whatever the file holds, the answer is a configuration or a message.
    #[test]
    fn no_text_is_too_odd(at in 0usize..400, cut in 0usize..8, odd in "\\PC{0,6}|[\n\t\r\"=\\[\\]]{0,4}") {
        let mut text = file("", "");
        let (start, end) = (text.floor_char_boundary(at), text.floor_char_boundary(at + cut));
        text.replace_range(start..end, &odd);
        if let Err(message) = parse(&text) {
            prop_assert!(message.starts_with("lb.toml:"), "{message}");
        }
    }
}

#[test]
fn what_is_written_is_read_as_the_same() {
    for (replaced, with) in [
        ("", ""),
        ("type = \"http\"\npath = \"/health\"\nexpect = \"200,204\"", "type = \"tcp\""),
        ("type = \"http\"\npath = \"/health\"\nexpect = \"200,204\"", "type = \"none\""),
        ("port = 8080", ""),
        ("port = 8080", "fast_interval = \"100ms\"\njitter = 50\nhost = \"web.example\"\nbody = \"a \\\"b\\\"\""),
        (
            "type = \"http\"",
            "type = \"https\"\nserver_name = \"a.example\"\nca_file = \"/ca.pem\"\ninsecure_skip_verify = true",
        ),
        ("type = \"http\"\npath = \"/health\"\nexpect = \"200,204\"", "type = \"agent\"\nsend = \"hi\\n\""),
        ("type = \"http\"\npath = \"/health\"\nexpect = \"200,204\"", "type = \"udp\"\nsend = \"hi\"\nbody = \"ho\""),
        ("weight = 3", "weight = 3\nhealth_port = 81\nbackup = true"),
        ("weight = 3", "weight = 3\nagent_port = 81\n[service.web.agent]"),
        ("weight = 3", "[service.web.agent]\nport = 1\ninterval = \"1s\"\ntimeout = \"2s\"\nsend = \"lb\\n\""),
        ("weight = 3", "[service.web.passive]\nenabled = false\nerrors = 5\nlatency = \"250ms\"\nmax_ejected = 0"),
        (
            "weight = 3",
            "[service.web.passive]\nconnect_failures = 1\nfactor = 9\nwindow = \"1m\"\neject_for = \"1m 30s\"",
        ),
        ("interfaces = [\"eth0\"]", "interfaces = [\"eth0\"]\nhttp = \"off\""),
        ("interfaces = [\"eth0\"]", "interfaces = [\"eth0\"]\nhttp = \"[::1]:80\""),
        ("[service.web]", "[alarm_rules]\nout_of_rotation = \"1m\"\ntable_pressure = 50\n[service.web]"),
        (
            "[service.web]",
            "[[alarm]]\nname = \"a\"\nwebhook = \"https://hooks.example/lb?x=y\"\nexec = \"/bin/page\"\non = [\"ejected\"]\n\
             repeat = \"5m\"\ntimeout = \"2s\"\nsecret_file = \"/s\"\nca_file = \"/ca\"\n[service.web]",
        ),
        ("listen = \"203.0.113.10:80\"", "listen = \"203.0.113.10:80\"\nfail = \"open\"\nslow_start = \"1m 30s\""),
        ("listen = \"203.0.113.10:80\"", "listen = \"203.0.113.10:80\"\nalgorithm = \"maglev\"\nmin_healthy = 2"),
    ] {
        let config = parse(&file(replaced, with)).unwrap();
        let written = document::toml(&config.global, &config.alarms, &config.services);
        let again = parse(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
        assert_eq!(
            (again.global, &again.alarms, &again.services),
            (config.global, &config.alarms, &config.services),
            "{written}"
        );
        let service = &config.services[0];
        assert_eq!(document::service("web", &document::whole(service)).as_ref(), Ok(service));
    }
}

#[test]
fn values_are_found_by_their_keys() {
    let config = parse(&file("", "")).unwrap();
    let flat = document::flat(&config.global, &config.alarms, &config.services);
    assert_eq!(flat["service.web.backend.web-01.weight"], "3");
    assert_eq!(flat["service.web.backend.10.0.0.12:80.address"], "\"10.0.0.12:80\"");
    assert_eq!(flat["service.web.health.interval"], "\"500ms\"");
    assert_eq!(flat["global.interfaces"], "[\"eth0\"]");
}

#[test]
fn a_udp_service_with_a_tcp_check_at_its_own_port_is_warned_of() {
    let warnings = |rest: &str, health: &str| {
        let text = format!(
            "[global]\ninterfaces = [\"eth0\"]\n[service.dns]\nlisten = \"203.0.113.10:53\"\n{rest}\n\
             [[service.dns.backend]]\naddress = \"10.0.0.11:53\"\n{health}"
        );
        parse(&text).unwrap().warnings()
    };
    let warned = warnings("protocol = \"udp\"\nhealth.type = \"tcp\"", "");
    assert!(matches!(&warned[..], [one] if one.starts_with("service dns is udp")), "{warned:?}");
    for (rest, health) in [
        ("protocol = \"tcp\"", ""),
        ("protocol = \"udp\"\nhealth.type = \"none\"", ""),
        ("protocol = \"udp\"", ""),
        ("protocol = \"udp\"\nhealth.type = \"tcp\"\nhealth.port = 8080", ""),
        ("protocol = \"udp\"\nhealth.type = \"tcp\"", "health_port = 8080"),
    ] {
        assert!(warnings(rest, health).is_empty(), "{rest} {health}");
    }
}

#[test]
fn a_backend_of_weight_0_is_warned_of() {
    let warnings = parse(&file("weight = 3", "weight = 0")).unwrap().warnings();
    assert!(
        matches!(&warnings[..], [one] if one.starts_with("backend web-01 of service web has weight 0")),
        "{warnings:?}"
    );
    assert!(parse(&file("", "")).unwrap().warnings().is_empty());
}

#[test]
fn a_doubt_is_checked_at_twice_the_pace_unless_another_is_asked_for() {
    let health = |with: &str| parse(&file("port = 8080", with)).unwrap().services.remove(0).health;
    let usual = health("");
    assert_eq!((usual.pace(true), usual.pace(false)), (Duration::from_millis(500), Duration::from_millis(250)));
    assert_eq!(health("fast_interval = \"2s\"").pace(false), Duration::from_secs(2));
}
