//! Commands: run them, run them as root, say which one failed.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// The root of the repository.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in a workspace")
}

/// The cargo that runs this, in the root of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args(arguments);
    command
}

/// Runs a command with its output on this terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Says what comes, runs it and says how long it took.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    println!("==> {title}: {}", show(command));
    let started = Instant::now();
    run(command)?;
    println!("==> {title}: passed in {:.1} s\n", started.elapsed().as_secs_f64());
    Ok(())
}

/// The command as root: as it is, or through sudo; without either, an error that says what to type.
pub(crate) fn as_root(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<Command> {
    let program = program.as_ref();
    let mut command = if lab::is_root() {
        Command::new(program)
    } else if find("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg("--preserve-env").arg(program);
        sudo
    } else {
        let mut wanted = Command::new(program);
        bail!("this needs root, and there is no sudo; run as root: {}", show(wanted.args(arguments)));
    };
    command.args(arguments);
    Ok(command)
}

/// Does it as root: in this process, or in one that sudo starts again in its place.
pub(crate) fn with_root(work: impl FnOnce() -> Result<()>) -> Result<()> {
    if lab::is_root() || find("sudo").is_none() {
        return work();
    }
    let own: Vec<_> = env::args().skip(1).collect();
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    let mut again = as_root(env::current_exe()?, &own)?;
    Err(again.env(AGAIN, "1").exec()).context("cannot start sudo")
}

/// Has a cargo start what it builds as root.
pub(crate) fn start_as_root(cargo: &mut Command) -> Result<()> {
    if !lab::is_root() {
        cargo.env(runner_variable()?, "sudo --preserve-env");
    }
    Ok(())
}

/// What tells cargo the program that starts the test binaries.
fn runner_variable() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names its host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace(['-', '.'], "_")))
}

/// Whether sudo has started this: whoever did that has built what it needs.
pub(crate) fn is_again() -> bool {
    env::var_os(AGAIN).is_some()
}

const AGAIN: &str = "LB_XTASK_AGAIN";

/// A program's path, also where only root looks by default.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// A command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    // Cargo names itself by a path that nobody types.
    let program = command.get_program();
    let program = if env::var_os("CARGO").is_some_and(|cargo| cargo == program) { "cargo".as_ref() } else { program };
    let words = [program].into_iter().chain(command.get_args());
    let environment = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={}", key.to_string_lossy(), quote(&value?.to_string_lossy()))));
    environment.chain(words.map(|word| quote(&word.to_string_lossy()))).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    if word.contains(|c: char| c.is_whitespace() || c == '*') { format!("'{word}'") } else { word.to_owned() }
}
