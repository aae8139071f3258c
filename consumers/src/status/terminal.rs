//! The terminal while the live view is on it. Whatever ends the view, the terminal is as it was.

use std::io::{Stdout, Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};
use tokio::sync::mpsc;

use super::screen::{Line, Tone};

/// How soon the thread that reads keys notices that nobody listens any more.
const KEY_POLL: Duration = Duration::from_millis(100);
/// Where the terminal does not tell.
const SIZE: (u16, u16) = (80, 24);

/// What the person at the terminal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    End,
    Redraw,
}

pub(super) struct Terminal {
    out: Stdout,
    colours: bool,
    closed: Arc<AtomicBool>,
    wishes: mpsc::Receiver<Wish>,
}

impl Terminal {
    pub(super) fn open() -> std::io::Result<Self> {
        enable_raw_mode()?;
        let (sender, wishes) = mpsc::channel(8);
        let closed = Arc::new(AtomicBool::new(false));
        // From here on dropping it restores the terminal.
        let mut terminal = Self {
            out: stdout(),
            colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            closed: Arc::clone(&closed),
            wishes,
        };
        execute!(terminal.out, EnterAlternateScreen, cursor::Hide)?;
        std::thread::spawn(move || listen(&closed, &sender));
        Ok(terminal)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        let known = size().ok().filter(|(columns, rows)| *columns > 0 && *rows > 0);
        let (columns, rows) = known.unwrap_or(SIZE);
        (columns.into(), rows.into())
    }

    pub(super) fn draw(&mut self, lines: &[Line]) -> std::io::Result<()> {
        queue!(self.out, BeginSynchronizedUpdate)?;
        for (row, line) in (0_u16..).zip(lines) {
            queue!(self.out, cursor::MoveTo(0, row))?;
            for (tone, text) in line {
                self.style(*tone)?;
                queue!(self.out, Print(text), SetAttribute(Attribute::Reset), ResetColor)?;
            }
            queue!(self.out, Clear(ClearType::UntilNewLine))?;
        }
        if lines.len() < self.size().1 {
            let row = u16::try_from(lines.len()).unwrap_or(u16::MAX);
            queue!(self.out, cursor::MoveTo(0, row), Clear(ClearType::FromCursorDown))?;
        }
        queue!(self.out, EndSynchronizedUpdate)?;
        self.out.flush()
    }

    /// The next wish; `None` when nobody can wish any more.
    pub(super) async fn wish(&mut self) -> Option<Wish> {
        self.wishes.recv().await
    }

    fn style(&mut self, tone: Tone) -> std::io::Result<()> {
        match tone {
            Tone::Plain => Ok(()),
            Tone::Head => queue!(self.out, SetAttribute(Attribute::Bold)),
            Tone::Faint => queue!(self.out, SetAttribute(Attribute::Dim)),
            Tone::Warning if self.colours => queue!(self.out, SetForegroundColor(Color::Yellow)),
            Tone::Alarm if self.colours => queue!(self.out, SetForegroundColor(Color::Red)),
            Tone::Warning | Tone::Alarm => queue!(self.out, SetAttribute(Attribute::Bold)),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Nothing is left to do when the terminal is gone.
        execute!(self.out, cursor::Show, LeaveAlternateScreen).ok();
        disable_raw_mode().ok();
    }
}

/// In raw mode Ctrl-C is a key and no signal.
fn listen(closed: &AtomicBool, wishes: &mpsc::Sender<Wish>) {
    while !closed.load(Ordering::Relaxed) {
        let wish = match poll(KEY_POLL).and_then(|there| there.then(read).transpose()) {
            Ok(None) => None,
            Ok(Some(event)) => wish_of(&event),
            Err(_) => Some(Wish::End),
        };
        if let Some(wish) = wish
            && (wishes.blocking_send(wish).is_err() || wish == Wish::End)
        {
            return;
        }
    }
}

fn wish_of(event: &Event) -> Option<Wish> {
    match event {
        Event::Resize(..) => Some(Wish::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Wish::End),
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Wish::End)
            }
            _ => None,
        },
        _ => None,
    }
}
