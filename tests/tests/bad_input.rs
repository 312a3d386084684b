//! Whatever is asked wrongly gets one clear answer, and the state before it is intact.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Family, Json, Lab, Layout, Nginx, Outcome, Service, configuration, lb_binary, run, test};

#[test]
fn a_wrong_request_gets_an_error_and_changes_nothing() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let before = daemon.lb(&["config", "show", "--running"])?.stdout;
        let socket = daemon.socket();
        let huge = format!(r#"{{"reason":"{}"}}"#, "x".repeat(8 << 20));
        let (list, one) = ("/v1/services/web/backends", "/v1/services/web/backends/web-01");
        for (method, path, body, status, code, says) in [
            ("GET", "/", "", 404, "not_found", "no such path"),
            ("GET", "/v1/status/wbe", "", 404, "not_found", "the services are web"),
            ("GET", "/v1/services/web/backends/web-09", "", 404, "not_found", "the backends are web-01, web-02"),
            ("DELETE", "/v1/status", "", 405, "invalid", "method"),
            ("PATCH", one, &huge, 413, "invalid", ""),
            ("PATCH", one, "{", 400, "invalid", "JSON"),
            ("PATCH", one, "\u{0}\u{1}", 400, "invalid", "JSON"),
            ("PATCH", one, "[1]", 422, "invalid", "not a list"),
            ("PATCH", one, r#"{"weight":"three"}"#, 422, "invalid", "three"),
            ("PATCH", one, r#"{"weight":70000}"#, 422, "invalid", "70000"),
            ("PATCH", one, r#"{"weight":300}"#, 400, "invalid", "between 0 and 256"),
            ("PATCH", one, r#"{"weight":1,"wieght":1}"#, 422, "invalid", "wieght"),
            ("PATCH", one, r#"{"admin":"gone"}"#, 422, "invalid", "gone"),
            ("PATCH", one, r#"{"admin":"draining","until":"2020-01-01T00:00:00Z"}"#, 400, "invalid", "over already"),
            ("PATCH", one, r#"{"paused":true,"weight":2}"#, 400, "invalid", "of their own"),
            ("PATCH", one, r#"{"admin":"draining","reason":"a\nb"}"#, 400, "invalid", "one line"),
            ("POST", list, r#"{"address":"10.0.0.99:80","name":"web-01"}"#, 409, "conflict", "already"),
            ("POST", list, r#"{"address":"10.0.0.99"}"#, 400, "invalid", "has no port; write 10.0.0.99:80"),
            ("POST", list, r#"{"address":"[2001:db8::9]:80"}"#, 400, "invalid", "keeps the family"),
            ("POST", "/v1/services", r#"{"name":"web","listen":"203.0.113.11:80"}"#, 409, "conflict", "already"),
            ("POST", "/v1/services", r#"{"name":"x","listen":"203.0.113.10:80","backend":[]}"#, 409, "conflict", "web"),
            ("PATCH", "/v1/services/web", r#"{"algorithm":"fastest"}"#, 400, "invalid", "fastest"),
            ("DELETE", "/v1/services/web", "", 409, "refused", "2 backends in rotation"),
            ("GET", "/v1/events?after=minus", "", 400, "invalid", ""),
        ] {
            let shown = &body[..body.len().min(80)];
            let (found, answer) =
                ask(&socket, method, path, body).with_context(|| format!("{method} {path} {shown}"))?;
            let error = &answer["error"];
            assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{method} {path} {shown}: {answer}");
            assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{shown}: {answer}");
        }
        // Not even HTTP.
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(b"\x16\x03\x01\r\n\r\n")?;
        assert_eq!(daemon.lb(&["config", "show", "--running"])?.stdout, before);
        assert_eq!(daemon.status()?["services"][0]["in_rotation"], 2);
        Ok(())
    });
}

#[test]
fn of_conflicting_changes_one_is_made() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let socket = &daemon.socket();
        let count = |requests: Vec<(&'static str, String, String)>| -> Result<(usize, Vec<u16>)> {
            let statuses = thread::scope(|scope| {
                let ask = |(method, path, body): (&'static str, String, String)| {
                    scope.spawn(move || Ok::<_, anyhow::Error>(ask(socket, method, &path, &body)?.0))
                };
                let threads: Vec<_> = requests.into_iter().map(ask).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<Vec<_>>>()
            })?;
            let done = statuses.iter().filter(|status| (200..300).contains(*status)).count();
            Ok((done, statuses))
        };
        let add = |n: u16| {
            let body = format!(r#"{{"name":"new","address":"10.0.0.{}:80"}}"#, 50 + n);
            ("POST", "/v1/services/web/backends".to_owned(), body)
        };
        let (done, statuses) = count((0..20).map(add).collect())?;
        assert_eq!((done, statuses.iter().filter(|status| **status == 409).count()), (1, 19), "{statuses:?}");
        // Both may go, but not both of them.
        let disable = |n: u16| {
            let path = format!("/v1/services/web/backends/web-0{n}");
            ("PATCH", path, r#"{"admin":"disabled"}"#.to_owned())
        };
        let (done, statuses) = count([1, 2].map(disable).to_vec())?;
        assert_eq!(done, 1, "{statuses:?}");
        assert_eq!(daemon.status()?["services"][0]["in_rotation"], 1);
        Ok(())
    });
}

#[test]
fn a_full_disk_refuses_changes_and_nothing_else() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let state = lab.dir().join("state");
        let _disk = Disk::mount(&state)?;
        let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        assert_eq!(daemon.lb(&["backend", "set", "web/web-01", "--weight", "2"])?.code, Some(0));
        let filler = state.join("filler");
        let mut file = fs::File::create(&filler)?;
        while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
        drop(file);

        let refused = daemon.lb(&["backend", "set", "web/web-01", "--weight", "9"])?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for words in ["state.json", "No space left", "state_dir"] {
            assert!(refused.stderr.contains(words), "{refused:?}");
        }
        let weight =
            |daemon: &Daemon| Ok::<_, anyhow::Error>(lab::backend(&daemon.status()?, "web-01")?["weight"].clone());
        assert_eq!(weight(&daemon)?, 2);
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
        assert_eq!((tally.total(), tally.failures.len()), (20, 0));
        daemon.kill()?;
        daemon.start_again()?;
        assert_eq!(weight(&daemon)?, 2);

        fs::remove_file(filler)?;
        assert_eq!(daemon.lb(&["backend", "set", "web/web-01", "--weight", "9"])?.code, Some(0));
        let events = daemon.lb(&["events", "-o", "json", "web/web-01"])?;
        assert!(events.stdout.contains(r#""to":"9""#), "{events:?}");
        drop(daemon);
        Ok(())
    });
}

#[test]
fn a_bpf_file_system_that_is_read_only_is_named() {
    const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mount -t bpf bpf "$1"
"$2" run --config "$3" >"$1.log" 2>&1 & daemon=$!
until "$2" status --socket "$4" >"$1.status" 2>&1; do kill -0 $daemon; done
kill $daemon
wait $daemon
mount -o remount,ro "$1"
for command in "run" "xdp detach"; do
    timeout 20 "$2" $command --config "$3" && exit 9 || echo "$? $command"
done
mount -o remount,rw "$1"
"$2" xdp detach --config "$3"
"#;
    test(&Layout::default(), |lab| {
        let pins = lab.dir().join("bpf");
        fs::create_dir(&pins)?;
        let text = configuration(lab, &[Service::web(lab, Family::V4)]);
        let text = text.replace(&lab.pin_dir().display().to_string(), &pins.join("lb").display().to_string());
        let (config, socket) = (lab.dir().join("lb.toml"), lab.dir().join("lb.sock"));
        fs::write(&config, text)?;
        let mut command = lab.front().command("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(pins).arg(lb_binary()?).arg(config).arg(socket);
        let outcome = Outcome::of(&mut command)?;
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.starts_with("1 run\n1 xdp detach\ndetached from"), "{outcome:?}");
        let told = outcome.stderr.matches("is mounted read-only; `mount -o remount,rw`").count();
        assert_eq!(told, 2, "{outcome:?}");
        Ok(())
    });
}

#[test]
fn a_start_that_cannot_be_says_why_and_leaves_a_running_daemon_alone() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let services = [Service::web(lab, Family::V4)];
        let daemon = Daemon::start(lab, &services)?;
        let good = configuration(lab, &services);
        let pins = lab.pin_dir().display().to_string();
        let check = |from: &str, to: &str, says: &[&str]| -> Result<()> {
            // With sockets of its own, unless that is the point.
            let text = good.replace("lb.sock", "other.sock").replace("flows", "http = \"off\"\nflows");
            let text = text.replace(from, to);
            let config = lab.dir().join("other.toml");
            fs::write(&config, text)?;
            let mut command = lab.front().command("timeout");
            let outcome = Outcome::of(command.arg("20").arg(lb_binary()?).args(["run", "--config"]).arg(config))?;
            assert_eq!(outcome.code, Some(1), "{outcome:?}");
            for words in says {
                assert!(outcome.stderr.contains(words), "no {words:?} in {}", outcome.stderr);
            }
            assert!(!lab.dir().join("other.sock").exists(), "{outcome:?}");
            Ok(())
        };
        check("", "", &[&pins, "another lb is using"])?;
        check("http = \"off\"\n", "", &["127.0.0.1:9633", "`http` in [global]"])?;
        check(&pins, "/sys/kernel/lb", &["/sys/kernel/lb"])?;
        check(&pins, "/proc/lb", &["/proc/lb"])?;
        let file = lab.dir().join("file");
        fs::write(&file, "mine")?;
        let file = file.display().to_string();
        check(&lab.dir().join("other.sock").display().to_string(), &file, &[&file, "not a socket"])?;
        assert_eq!(fs::read_to_string(&file)?, "mine");
        let state = lab.dir().join("state").display().to_string();
        check(&state, &file, &[&file])?;
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
        assert_eq!((tally.total(), tally.failures.len()), (20, 0), "{tally:?}");
        assert_eq!(daemon.status()?["services"][0]["in_rotation"], 2);
        Ok(())
    });
}

/// A request by hand, and its answer.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<(u16, Json)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    // A server that has seen enough may not read all of it.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    let status = head.split_whitespace().nth(1).context("a status line")?.parse()?;
    Ok((status, body.parse().with_context(|| format!("not JSON: {body:?}"))?))
}

/// A disk of a few pages. Dropping it unmounts it.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "lb-test"]).arg(at), "")?;
        ensure!(at.is_dir(), "it is mounted");
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The daemon that is killed after this may hold files open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
