//! A real folder, as editors, tools and Kubernetes write into it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver};

use super::*;
use crate::model::Object;

/// How long these tests wait for a writer that neither writes nor closes.
const PATIENCE: Duration = Duration::from_secs(2);

/// A folder of its own and what its source tells.
struct Watched {
    path: PathBuf,
    events: Receiver<Vec<SourceEvent>>,
    _source: ManifestSource,
}

impl Watched {
    /// With `fill` done before it is watched.
    fn new(fill: impl FnOnce(&Path)) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluice-watch-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap();
        fill(&path);
        let (sender, events) = mpsc::channel(16);
        let source = ManifestSource::watch_with(&path, sender, PATIENCE).unwrap();
        Self {
            path,
            events,
            _source: source,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path.join(name), text).unwrap();
    }

    /// Compares the next batch.
    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let next = async { tokio::time::timeout(Duration::from_secs(8), self.events.recv()).await };
        let batch = runtime
            .block_on(next)
            .expect("a batch comes")
            .expect("the source lives");
        let told: Vec<_> = batch.iter().map(words).collect();
        assert_eq!(told, expected);
    }

    /// Nothing is told for a while.
    #[track_caller]
    fn check_silence(&mut self) {
        self.check_silence_for(Duration::from_millis(100));
    }

    #[track_caller]
    fn check_silence_for(&mut self, time: Duration) {
        std::thread::sleep(time);
        assert_eq!(self.events.try_recv().ok(), None);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

fn words(event: &SourceEvent) -> String {
    match event {
        SourceEvent::Apply {
            object: Object::Service(service),
            ..
        } => {
            format!("{} {}", service.name, service.cluster_ips[0])
        }
        SourceEvent::Apply { object, .. } => object.reference().to_string(),
        SourceEvent::Delete(gone) => format!("no {gone}"),
        SourceEvent::Synced => "synced".into(),
        SourceEvent::Problem(problem) => format!("problem: {problem}"),
    }
}

fn service(name: &str, host: u8) -> String {
    format!(
        "kind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.0.{host}, ports: [{{port: 80}}]}}\n"
    )
}

#[test]
fn files_are_read_in_order_and_then_the_source_is_synced() {
    let mut watched = Watched::new(|path| {
        fs::write(path.join("b.yaml"), service("b", 2)).unwrap();
        fs::write(path.join("a.yml"), service("a", 1)).unwrap();
        for name in [".hidden.yaml", "a.yaml~", "a.yaml.swp", "notes.txt", "b.yaml.tmp"] {
            fs::write(path.join(name), service("c", 3)).unwrap();
        }
    });
    watched.check(&["default/a 10.96.0.1", "default/b 10.96.0.2", "synced"]);
    watched.check_silence();
}

#[test]
fn a_file_is_written_replaced_and_removed() {
    let mut watched = Watched::new(|_| ());
    watched.check(&["synced"]);
    watched.write("a.yaml", &service("a", 1));
    watched.check(&["default/a 10.96.0.1"]);
    watched.write(".a.yaml.new", &service("a", 2));
    fs::rename(watched.path.join(".a.yaml.new"), watched.path.join("a.yaml")).unwrap();
    watched.check(&["default/a 10.96.0.2"]);
    fs::remove_file(watched.path.join("a.yaml")).unwrap();
    watched.check(&["no Service default/a"]);
    watched.check_silence();
}

#[test]
fn links_are_swapped_as_in_a_config_map_mount() {
    let mut watched = Watched::new(|path| {
        for (version, host) in [("..1", 1), ("..2", 2)] {
            fs::create_dir(path.join(version)).unwrap();
            fs::write(path.join(version).join("a.yaml"), service("a", host)).unwrap();
        }
        symlink("..1", path.join("..data")).unwrap();
        symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    });
    watched.check(&["default/a 10.96.0.1", "synced"]);
    symlink("..2", watched.path.join("..data_tmp")).unwrap();
    fs::rename(watched.path.join("..data_tmp"), watched.path.join("..data")).unwrap();
    watched.check(&["default/a 10.96.0.2"]);
}

#[test]
fn a_file_is_not_read_timeit_is_being_written() {
    let mut watched = Watched::new(|path| fs::write(path.join("a.yaml"), service("a", 1)).unwrap());
    watched.check(&["default/a 10.96.0.1", "synced"]);
    let mut file = File::create(watched.path.join("a.yaml")).unwrap();
    file.write_all(b"# more to come\n").unwrap();
    watched.check_silence();
    file.write_all(service("a", 2).as_bytes()).unwrap();
    drop(file);
    watched.check(&["default/a 10.96.0.2"]);
}

#[test]
fn a_file_that_was_emptied_keeps_its_objects_for_a_while() {
    let fill = |path: &Path| fs::write(path.join("a.yaml"), service("a", 1)).unwrap();
    let mut watched = Watched::new(fill);
    watched.check(&["default/a 10.96.0.1", "synced"]);
    // Closed at once, so nobody seems to be writing.
    File::create(watched.path.join("a.yaml")).unwrap();
    watched.write("b.yaml", &service("b", 2));
    watched.check(&["default/b 10.96.0.2"]);
    watched.check_silence();
    watched.write("a.yaml", &service("a", 2));
    watched.check(&["default/a 10.96.0.2"]);
    File::create(watched.path.join("a.yaml")).unwrap();
    watched.check(&["no Service default/a"]);
}

#[test]
fn a_writer_that_pauses_is_waited_for() {
    let text = |host| service("a", host) + "---\n" + &service("b", host);
    let mut watched = Watched::new(|path| fs::write(path.join("x.yaml"), text(1)).unwrap());
    watched.check(&["default/a 10.96.0.1", "default/b 10.96.0.1", "synced"]);
    for (host, cut) in [(2, "spec:"), (3, "---")] {
        let whole = text(host);
        let (first, rest) = whole.split_at(whole.find(cut).unwrap());
        let mut file = File::create(watched.path.join("x.yaml")).unwrap();
        file.write_all(first.as_bytes()).unwrap();
        watched.check_silence_for(Duration::from_secs(1));
        // What happens to other files does not end the wait.
        watched.write("other.yaml", &service("c", host));
        watched.check(&[&format!("default/c 10.96.0.{host}")]);
        watched.check_silence();
        file.write_all(rest.as_bytes()).unwrap();
        watched.check_silence();
        drop(file);
        let [a, b] = ["a", "b"].map(|name| format!("default/{name} 10.96.0.{host}"));
        watched.check(&[&a, &b]);
    }
}

#[test]
fn a_file_put_in_the_place_of_one_that_is_being_written_is_read() {
    let mut watched = Watched::new(|path| fs::write(path.join("a.yaml"), service("a", 1)).unwrap());
    watched.check(&["default/a 10.96.0.1", "synced"]);
    let mut file = File::create(watched.path.join("a.yaml")).unwrap();
    file.write_all(b"kind:").unwrap();
    watched.check_silence();
    watched.write("new", &service("a", 2));
    let replaced = Instant::now();
    fs::rename(watched.path.join("new"), watched.path.join("a.yaml")).unwrap();
    watched.check(&["default/a 10.96.0.2"]);
    assert!(replaced.elapsed() < PATIENCE / 2);
    drop(file);
}

#[test]
fn a_file_that_stays_open_is_read_after_a_while() {
    let mut watched = Watched::new(|_| ());
    watched.check(&["synced"]);
    let mut file = File::create(watched.path.join("a.yaml")).unwrap();
    file.write_all(service("a", 1).as_bytes()).unwrap();
    watched.check(&["default/a 10.96.0.1"]);
    drop(file);
}

#[test]
fn a_folder_that_goes_keeps_its_objects_until_it_is_back() {
    let mut watched = Watched::new(|path| fs::write(path.join("a.yaml"), service("a", 1)).unwrap());
    watched.check(&["default/a 10.96.0.1", "synced"]);
    let away = watched.path.with_extension("away");
    fs::rename(&watched.path, &away).unwrap();
    watched.check(&[&format!(
        "problem: {}: the manifest folder cannot be read: No such file or directory (os error 2); what it said last stays",
        watched.path.display()
    )]);
    fs::rename(&away, &watched.path).unwrap();
    watched.write("b.yaml", &service("b", 2));
    watched.check(&["default/b 10.96.0.2"]);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let (sender, _events) = mpsc::channel(1);
    let error = ManifestSource::watch(Path::new("/nonexistent/manifests"), sender).unwrap_err();
    assert_eq!(
        error.to_string(),
        "manifest folder /nonexistent/manifests cannot be read"
    );
}
