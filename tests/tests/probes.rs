//! Every kind of probe against real servers, and a thousand of them at once.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{
    Daemon, Family, Health, Lab, Layout, Nginx, Node, Process, Service, backend, configuration, eventually, test,
};

#[test]
fn an_agent_takes_its_server_out_and_puts_it_back() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let agent = Agent::start_in(&lab.webs()[0], "up 100%\n")?;
        let other = Agent::start_in(&lab.webs()[1], "ready up\n")?;
        let health = Health { kind: "agent", ..Health::default() };
        let text = configuration(lab, &[Service { health, ..Service::web(lab, Family::V4) }]);
        let daemon = Daemon::start_with(lab, &text.replace("rise = 2", &format!("rise = 2\nport = {}", Agent::PORT)))?;
        assert_eq!(daemon.status()?["services"][0]["verdict"], "ok");
        agent.say("drain\n");
        let out = daemon.await_rotation("web-01", false)?;
        assert_eq!((&out["health"], &out["cause"]), (&"up".into(), &"the agent says drain 100%".into()), "{out:#}");
        agent.say("ready 25%\n");
        let back = daemon.await_rotation("web-01", true)?;
        assert_eq!(back["share"], 25, "{back:#}");
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 100)?;
        assert!((10..=30).contains(&tally.of("web-01")) && tally.failures.is_empty(), "{tally:?}");
        agent.say("down # disk is full\n");
        let down = daemon.await_rotation("web-01", false)?;
        assert_eq!(down["health"], "down", "{down:#}");
        assert!(down["cause"].as_str().is_some_and(|cause| cause.ends_with("down: disk is full")), "{down:#}");
        drop((agent, other));
        Ok(())
    });
}

#[test]
fn a_server_behind_tls_is_who_its_certificate_says() {
    test(&Layout::default(), |lab| {
        let certificates =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-userspace/src/probe/tests").canonicalize()?;
        let _servers = lab.webs().iter().map(|web| tls_server(lab, web, &certificates)).collect::<Result<Vec<_>>>()?;
        let mut service = Service::web(lab, Family::V4);
        service.health = Health { kind: "https", timeout: Duration::from_secs(2), ..Health::default() };
        for (_, address, _) in &mut service.backends {
            address.set_port(443);
        }
        let text = configuration(lab, &[service]);
        let with = |keys: &str| text.replace("rise = 2", &format!("rise = 2\n{keys}"));
        let authority = format!("ca_file = \"{}\"\n", certificates.join("ca.pem").display());
        let daemon = Daemon::start_with(lab, &with(&format!("{authority}server_name = \"web.example\"")))?;
        assert_eq!(daemon.status()?["services"][0]["in_rotation"], 2, "{:#}", daemon.status()?);

        let check = |keys: &str, in_rotation: u64, says: &str| -> Result<()> {
            fs::write(daemon.config(), with(keys))?;
            let reloaded = daemon.lb(&["config", "reload"])?;
            ensure!(reloaded.code == Some(0), "{reloaded:?}");
            eventually(&format!("{in_rotation} in rotation with {keys}"), Duration::from_secs(10), || {
                Ok((daemon.status()?["services"][0]["in_rotation"] == in_rotation).then_some(()))
            })?;
            let run = daemon.lb(&["health", "run", "web/web-01"])?;
            assert!(run.stdout.contains(says) || run.stderr.contains(says), "{run:?}");
            assert_eq!(run.code, Some(i32::from(in_rotation == 0)), "{run:?}");
            Ok(())
        };
        check(&format!("{authority}server_name = \"other.example\""), 0, "other.example")?;
        check("server_name = \"web.example\"\ninsecure_skip_verify = true", 2, "HTTP 200")?;
        check("server_name = \"web.example\"", 0, "TLS")?;
        fs::write(daemon.config(), with("ca_file = \"/nonexistent.pem\""))?;
        let refused = daemon.lb(&["config", "reload"])?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("/nonexistent.pem"), "{refused:?}");
        Ok(())
    });
}

#[test]
fn paused_checks_leave_health_as_it_is() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let paused = daemon.lb(&["health", "pause", "web/web-01", "--reason", "debugging"])?;
        assert_eq!(paused.code, Some(0), "{paused:?}");
        servers[0].stop()?;
        servers[1].stop()?;
        daemon.await_rotation("web-02", false)?;
        assert_eq!(backend(&daemon.status()?, "web-01")?["in_rotation"], true);
        assert_eq!(daemon.lb(&["health", "run", "web/web-01"])?.code, Some(1));
        daemon.stop()?;
        daemon.start_again()?;
        let status = daemon.status()?;
        let still = backend(&status, "web-01")?;
        assert_eq!((&still["paused"], &still["in_rotation"]), (&true.into(), &true.into()), "{still:#}");
        assert_eq!(daemon.lb(&["health", "resume", "web/web-01"])?.code, Some(0));
        daemon.await_rotation("web-01", false)?;
        Ok(())
    });
}

const MANY: u16 = 1000;

#[test]
fn a_thousand_backends_are_checked_every_second() {
    test(&Layout { webs: 1, ..Layout::default() }, |lab| {
        let web = &lab.webs()[0];
        let _nginx = many_servers(lab, web)?;
        let health = Health { interval: Duration::from_secs(1), ..Health::default() };
        let backends = (0..MANY).map(|n| (format!("b{n}"), web.address(Family::V4, 10_000 + n), 1)).collect();
        let daemon = Daemon::start(lab, &[Service { health, backends, ..Service::web(lab, Family::V4) }])?;
        let status = daemon.status()?;
        assert_eq!(status["services"][0]["in_rotation"], MANY, "{}", status["services"][0]["verdict"]);
        // The checks that began together go their own ways meanwhile.
        thread::sleep(Duration::from_secs(2));
        let pid = daemon.pid().context("it runs")?;
        let (cpu, started) = (cpu_time(pid)?, Instant::now());
        let (checks, window) = (requests(web)?, Duration::from_secs(10));
        thread::sleep(window);
        let (cpu, elapsed) = (cpu_time(pid)? - cpu, started.elapsed());
        let checks = requests(web)? - checks;
        let share = cpu.as_secs_f64() / elapsed.as_secs_f64();
        println!("{checks} checks in {elapsed:?} took {cpu:?}: {:.1}% of a core", share * 100.0);
        let per_second = f64::from(checks) / elapsed.as_secs_f64();
        assert!((900.0..1100.0).contains(&per_second), "{per_second} checks a second");
        let status = daemon.status()?;
        assert_eq!((&status["checks"]["running"], &status["checks"]["overdue"]), (&MANY.into(), &0.into()));
        Ok(())
    });
}

/// A server that says one line to whoever connects.
struct Agent {
    line: Arc<Mutex<&'static str>>,
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    node: Node,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    const PORT: u16 = 5555;

    fn start_in(node: &Node, line: &'static str) -> Result<Self> {
        let address = node.address(Family::V4, Self::PORT);
        let listener = node.enter(|| TcpListener::bind(address))?;
        let (line, stop) = (Arc::new(Mutex::new(line)), Arc::new(AtomicBool::new(false)));
        let (said, stopped) = (Arc::clone(&line), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let line = *said.lock().unwrap_or_else(PoisonError::into_inner);
                // Whoever asked may have gone.
                let _ = stream.and_then(|mut stream| stream.write_all(line.as_bytes()));
            }
        });
        Ok(Self { line, stop, address, node: node.clone(), thread: Some(thread) })
    }

    fn say(&self, line: &'static str) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it up.
        let _ = self.node.enter(|| std::net::TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tls_server(lab: &Lab, web: &Node, certificates: &Path) -> Result<Process> {
    let log = lab.dir().join(format!("openssl-{}.log", web.name()));
    let mut server = Process::start(web, Path::new("openssl"), &log, |command| {
        command.args(["s_server", "-www", "-accept", "443", "-cert"]).arg(certificates.join("server.pem"));
        command.arg("-key").arg(certificates.join("server.key.pem"));
    })?;
    let address = web.address(Family::V4, 443);
    eventually("openssl s_server", Duration::from_secs(10), || {
        ensure!(server.exited()?.is_none(), "{}", server.log());
        Ok(web.enter(|| std::net::TcpStream::connect(address)).ok())
    })?;
    Ok(server)
}

/// nginx on a thousand ports, each answering 200.
fn many_servers(lab: &Lab, web: &Node) -> Result<Process> {
    let dir: PathBuf = lab.dir().join("nginx-many");
    fs::create_dir_all(&dir)?;
    let mut text = "daemon off; worker_processes 1; worker_rlimit_nofile 8192; pid nginx.pid; error_log stderr;\n\
                    events { worker_connections 4096; }\nhttp { access_log off; server {\n"
        .to_owned();
    for n in 0..MANY {
        let _ = writeln!(text, "listen {};", 10_000 + n);
    }
    text.push_str("location / { return 200 ok; } location /stats { stub_status; } } }\n");
    fs::write(dir.join("nginx.conf"), text)?;
    let mut nginx = Process::start(web, Path::new("nginx"), &dir.with_extension("log"), |command| {
        command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf")).args(["-e", "stderr"]);
    })?;
    eventually("nginx on a thousand ports", Duration::from_secs(10), || {
        ensure!(nginx.exited()?.is_none(), "{}", nginx.log());
        Ok(requests(web).ok())
    })?;
    Ok(nginx)
}

/// How many requests nginx has had.
fn requests(web: &Node) -> Result<u32> {
    let url = format!("http://{}/stats", web.address(Family::V4, 10_000));
    let output = web.command("curl").args(["--silent", "--fail", &url]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts = text.lines().nth(2).context("stub_status has three lines")?;
    Ok(counts.split_whitespace().nth(2).context("the third is requests")?.parse()?)
}

/// What a process has used of the processors: fields 14 and 15 of `/proc/PID/stat` (proc(5)).
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("the name is in parentheses")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0)).sum();
    // USER_HZ is 100 on every Linux.
    Ok(Duration::from_millis(ticks * 10))
}
