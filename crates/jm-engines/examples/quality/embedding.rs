//! Embedding: whether questions find the note that answers them, in their own language and in the other one.

use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use jm_engines::{Call, EmbeddingEngine};
use jm_tasks::Purpose;

use crate::{
    embedded, loaded,
    report::{Bound, Report, Row, Unit, whole},
};

/// Of ten questions.
const FOUND: Bound = Bound::AtLeast(8.0);
/// For a hundred short texts.
const TIME: Bound = Bound::Below(10.0);
const SHORT_TEXTS: usize = 100;

/// Notes of a small company's people: some are about things that are close to each other.
const NOTES: [&str; 18] = [
    "Planning for the third quarter: the marketing budget is cut by fifteen percent, and the trade fair in Hamburg is \
     off. Two interns start in July.",
    "产品评审会纪要：新版录音界面下周四上线，先给内测用户使用。旧手机上波形绘制太慢，需要优化。",
    "The lease of the office on Mill Street ends in November. The landlord wants eight percent more. Laura looks at two \
     other buildings near the station.",
    "客户张先生来电投诉，上周五收到的打印机无法开机，要求换货或者退款。已安排售后明天上门检查。",
    "Bug report: the app crashes when the phone runs out of storage while a recording is being saved. The first part of \
     the recording must be kept.",
    "部门团建定在九月十二日，地点是西山森林公园，早上八点在公司门口集合，请大家带好雨具。",
    "Notes on the interview with the backend candidate: strong in databases, knows Rust, little experience with message \
     queues. Invite for a second round.",
    "数据库迁移方案：周六凌晨两点停机，预计四十分钟完成。如果失败，立即回滚到备份。",
    "Grandmother's apple cake: four apples, two hundred grams of flour, a hundred and fifty of sugar, three eggs, a \
     little cinnamon. Forty-five minutes at 180 degrees.",
    "体检结果：血压略高，医生建议少吃盐，每天散步半小时，三个月后复查。",
    "The tax adviser needs the receipts of last year by the end of March, above all those for travel and for the new \
     laptops.",
    "英语课笔记：虚拟语气表示与事实相反的假设，例如“如果我是你”。下节课小测验。",
    "Trip to Kyoto: flights are booked for the third of April, the hotel is near Nijo castle. Still to do: rail passes, \
     a table at the tofu restaurant.",
    "与供应商谈判：对方同意把交货时间从六周缩短到四周，但单价上涨百分之三。合同下周签。",
    "Security review: passwords of the old accounts have to be changed, and two-factor login becomes mandatory for \
     everybody from May on.",
    "孩子的家长会在周三晚上七点，班主任会讲期中考试成绩和春游安排。",
    "The car failed its inspection: the front brakes are worn and one headlight is too weak. The garage can repair it on \
     Monday for about 600 euros.",
    "读书笔记：作者认为，好的习惯来自环境的改变，而不是意志力。把手机放在另一个房间，就能更专心。",
];

/// Questions, and which of the notes answers them. Four of the notes are in the other language, which is harder: a model
/// of this size takes the language for part of the meaning.
const QUESTIONS: [(&str, usize); 10] = [
    ("When does the downtime for the database start?", 7),
    ("打印机坏了的客户想要什么？", 3),
    ("How much cinnamon and flour for the cake?", 8),
    ("When does the lease of our office end?", 2),
    ("What did the doctor say about my blood pressure?", 9),
    ("什么时候开始必须使用双重验证登录？", 14),
    ("Which candidate should be invited for a second interview?", 6),
    ("团建在哪里集合？", 5),
    ("供应商现在多久可以交货？", 13),
    ("去京都的航班是哪一天？", 12),
];

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let engine = loaded(embedded().embedding())?;
    let engine = engine.as_ref();
    let notes = vectors(engine, &NOTES.map(str::to_owned), Purpose::Passage).await?;
    let questions = vectors(engine, &QUESTIONS.map(|(question, _)| question.to_owned()), Purpose::Query).await?;
    let mut found = 0;
    for (question, (_, answer)) in questions.iter().zip(QUESTIONS) {
        found += usize::from(nearest(&notes, question).context("no notes")? == answer);
    }
    report.add(Row {
        measure: "questions that find their note first",
        input: format!("{} questions, {} notes, Chinese and English", QUESTIONS.len(), NOTES.len()),
        figure: whole(found),
        unit: Unit::Count,
        bound: FOUND,
    });
    // No two are the same.
    let texts: Vec<_> = (1..=SHORT_TEXTS).map(|number| format!("{number}. {}", QUESTIONS[number % 10].0)).collect();
    let begun = Instant::now();
    vectors(engine, &texts, Purpose::Passage).await?;
    report.add(Row {
        measure: "time of embedding",
        input: format!("{SHORT_TEXTS} short texts"),
        figure: begun.elapsed().as_secs_f64(),
        unit: Unit::Seconds,
        bound: TIME,
    });
    Ok(())
}

async fn vectors(engine: &dyn EmbeddingEngine, texts: &[String], purpose: Purpose) -> Result<Vec<Vec<f32>>> {
    let embeddings = engine.embed(texts, purpose, &Call::default()).await;
    Ok(embeddings.map_err(|error| anyhow!("{error}"))?.vectors)
}

/// Which of the notes is nearest; vectors are of length 1.
fn nearest(notes: &[Vec<f32>], question: &[f32]) -> Option<usize> {
    let similarity = |note: &[f32]| note.iter().zip(question).map(|(a, b)| a * b).sum::<f32>();
    let similarities = notes.iter().map(|note| similarity(note)).enumerate();
    similarities.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}
