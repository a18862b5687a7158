//! What came of it, for people and for machines.

use std::io::{self, Write};

use anyhow::Result;

use crate::{
    case::Quantity,
    course::{Compared, Line, Report},
    figures::Range,
    reconnect::Reconnect,
    scaling::Scaling,
};

pub(crate) fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
        return Ok(());
    }
    let machine = &report.machine;
    writeln!(
        out,
        "{} x {}, Linux {}, RabbitMQ {}, load before {}",
        machine.processors, machine.processor, machine.kernel, machine.rabbitmq, machine.load_before
    )?;
    writeln!(out, "Median (min-max) of each side, and of the ratio core / plain lapin pair by pair.")?;
    for work in &report.works {
        compared(&mut out, work)?;
    }
    if let Some(measured) = &report.reconnect {
        reconnect(&mut out, measured)?;
    }
    for table in &report.scaling {
        scaling(&mut out, table)?;
    }
    let verdict = if report.is_met() { "every target that was measured is met" } else { "NOT every target is met" };
    writeln!(out, "\n{verdict}")?;
    Ok(())
}

fn compared(out: &mut impl Write, work: &Compared) -> io::Result<()> {
    let Compared { name, messages, body_size, pairs, lines } = work;
    writeln!(out, "\n{name}\n  {messages} messages of {body_size} bytes, {} pairs", pairs.len())?;
    writeln!(out, "  {:<23} {:>26} {:>26} {:>18}  target", "", "core", "plain lapin", "ratio")?;
    for line in lines {
        let Line { quantity, core, plain, ratio, target, met } = line;
        let verdict = match (target, met) {
            (Some(target), Some(true)) => format!("{}  met", target.bound),
            (Some(target), _) => format!("{}  MISSED", target.bound),
            (None, _) => String::new(),
        };
        writeln!(
            out,
            "  {:<23} {:>26} {:>26} {:>18}  {verdict}",
            quantity.title(),
            shown(*core),
            shown(*plain),
            ratios(*ratio)
        )?;
    }
    Ok(())
}

fn reconnect(out: &mut impl Write, measured: &Reconnect) -> io::Result<()> {
    let verdict = if measured.met { "met" } else { "MISSED" };
    writeln!(out, "\nfirst message after a killed broker answers again")?;
    writeln!(out, "  {} ms  target: each <= {} ms  {verdict}", shown(measured.millis), measured.target_millis)
}

fn scaling(out: &mut impl Write, table: &Scaling) -> io::Result<()> {
    writeln!(
        out,
        "\n| {} | messages/s | ratio | client CPU, us/message | ratio | peak memory, MiB | ratio |",
        table.name
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for row in &table.rows {
        write!(out, "| {} |", row.size)?;
        for quantity in [Quantity::Rate, Quantity::Cpu, Quantity::Memory] {
            let line = row.compared.lines.iter().find(|line| line.quantity == quantity);
            if let Some(line) = line {
                write!(out, " {} | {} |", shown(line.core), ratios(line.ratio))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

fn shown(Range { median, min, max }: Range) -> String {
    // Three digits that mean something.
    let digits = match median {
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
}

fn ratios(Range { median, min, max }: Range) -> String {
    format!("{median:.2} ({min:.2}-{max:.2})")
}
