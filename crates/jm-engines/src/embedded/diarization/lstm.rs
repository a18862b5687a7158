//! A layer of an LSTM that reads a recording in both directions.
//!
//! candle's own makes a dozen tensors for each step; here the inputs' share is one product for all the steps, and a
//! step is a loop over numbers.

use candle_core::{Device, Tensor};
use jm_mq_core::OptionsError;

use super::weights::Weights;

/// Numbers that one direction remembers.
const HIDDEN: usize = 128;
/// In, forget, cell and out: rows of the weights, in this order.
const GATES: usize = 4 * HIDDEN;
/// What a layer puts out for each step: both directions' numbers.
pub(super) const OUTPUTS: usize = 2 * HIDDEN;
/// Remembered numbers that are taken into the gates at once: each pass over the gates costs as much as an addition.
const ABREAST: usize = 4;

pub(super) struct Lstm {
    forward: Direction,
    backward: Direction,
}

struct Direction {
    /// A column for each gate, for the inputs.
    input: Tensor,
    bias: Tensor,
    /// A row of gates for each remembered number.
    recurrent: Vec<f32>,
}

impl Lstm {
    pub(super) fn load(weights: &Weights, layer: usize, inputs: usize) -> Result<Self, OptionsError> {
        let direction = |suffix: &str| Direction::load(weights, &format!("l{layer}{suffix}"), inputs);
        Ok(Self { forward: direction("")?, backward: direction("_reverse")? })
    }

    /// A row for each step, both in and out.
    pub(super) fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let steps = input.dim(0)?;
        let mut output = vec![0.0; steps * OUTPUTS];
        self.forward.run(input, 0..steps, &mut output, 0)?;
        self.backward.run(input, (0..steps).rev(), &mut output, HIDDEN)?;
        Tensor::from_vec(output, (steps, OUTPUTS), &Device::Cpu)
    }
}

impl Direction {
    fn load(weights: &Weights, name: &str, inputs: usize) -> Result<Self, OptionsError> {
        let input_name = format!("lstm.weight_ih_{name}");
        let input = weights.tensor(&input_name, &[GATES, inputs])?.t().and_then(|input| input.contiguous());
        let bias = weights.tensor(&format!("lstm.bias_ih_{name}"), &[GATES])?;
        let bias = bias.add(&weights.tensor(&format!("lstm.bias_hh_{name}"), &[GATES])?);
        let rows = weights.numbers(&format!("lstm.weight_hh_{name}"), &[GATES, HIDDEN])?;
        let recurrent = (0..HIDDEN).flat_map(|number| rows.iter().skip(number).step_by(HIDDEN).copied()).collect();
        let wrong = |error| weights.wrong(&input_name, error);
        Ok(Self { input: input.map_err(wrong)?, bias: bias.map_err(wrong)?, recurrent })
    }

    /// Writes what it remembers after each step to `column` and on of that step's row.
    fn run(
        &self,
        input: &Tensor,
        steps: impl Iterator<Item = usize>,
        output: &mut [f32],
        column: usize,
    ) -> candle_core::Result<()> {
        let mut gates = input.matmul(&self.input)?.broadcast_add(&self.bias)?.flatten_all()?.to_vec1::<f32>()?;
        let (mut hidden, mut cell) = ([0.0; HIDDEN], [0.0; HIDDEN]);
        for step in steps {
            let gates = &mut gates[step * GATES..][..GATES];
            self.remember(&hidden, gates);
            let (input, gates) = gates.split_at(HIDDEN);
            let (forget, gates) = gates.split_at(HIDDEN);
            let (new, out) = gates.split_at(HIDDEN);
            for number in 0..HIDDEN {
                cell[number] = sigmoid(forget[number]) * cell[number] + sigmoid(input[number]) * tanh(new[number]);
                hidden[number] = sigmoid(out[number]) * tanh(cell[number]);
            }
            output[step * OUTPUTS + column..][..HIDDEN].copy_from_slice(&hidden);
        }
        Ok(())
    }

    /// Adds to the gates what is remembered.
    fn remember(&self, hidden: &[f32; HIDDEN], gates: &mut [f32]) {
        for (numbers, rows) in hidden.chunks_exact(ABREAST).zip(self.recurrent.chunks_exact(ABREAST * GATES)) {
            let (first, rows) = rows.split_at(GATES);
            let (second, rows) = rows.split_at(GATES);
            let (third, fourth) = rows.split_at(GATES);
            let rows = first.iter().zip(second).zip(third.iter().zip(fourth));
            for (gate, ((first, second), (third, fourth))) in gates.iter_mut().zip(rows) {
                *gate += (first * numbers[0] + second * numbers[1]) + (third * numbers[2] + fourth * numbers[3]);
            }
        }
    }
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

/// Quicker than the standard library's, and as exact as is needed.
fn tanh(value: f32) -> f32 {
    2.0 * sigmoid(2.0 * value) - 1.0
}
